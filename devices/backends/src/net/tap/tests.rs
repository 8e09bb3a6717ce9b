//! Tests of the TAP backend: with a pair of sockets in the interface's place, which need no
//! privileges, and with a real one in a network namespace.

mod bridged;
mod frames;
mod interface;
mod offloads;
mod options;
mod sockets;
mod waiting;
