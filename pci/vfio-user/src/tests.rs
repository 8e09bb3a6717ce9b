//! The server, by its messages.

mod dma;
mod endings;
mod hostile;
mod interrupts;
mod lent;
mod logging;
mod migration;
mod oracle;
mod registers;
