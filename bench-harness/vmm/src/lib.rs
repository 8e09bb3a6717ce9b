//! A small KVM virtual machine monitor for one freestanding guest, and the in-process stand-in for
//! hosts without KVM.

