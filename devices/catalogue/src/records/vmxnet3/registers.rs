//! Its registers: 32 bits each, eight bytes apart.

use paraslot_spec::vmxnet3::{MAX_INTRS, MAX_RX_QUEUES, MAX_TX_QUEUES, registers as at};

use crate::entry::Access::{Read, ReadToClear, ReadWrite, Write};
use crate::entry::Block;
use crate::records::register;

const INTRS: u16 = 25;
const TX_QUEUES: u16 = 8;
const RX_QUEUES: u16 = 16;
const _: () = assert!(
    INTRS as usize == MAX_INTRS
        && TX_QUEUES as usize == MAX_TX_QUEUES
        && RX_QUEUES as usize == MAX_RX_QUEUES
);

pub(super) const REGISTERS: &[Block] = &[
    Block {
        name: "Device registers (VD)",
        bar: 1,
        base: 0,
        repeated: None,
        negotiated: false,
        registers: &[
            register(
                "VRRS",
                at::VRRS,
                4,
                Write,
                "Reads the revisions that there are, a bit each; writing one bit selects it, until the function is reset.",
            ),
            register(
                "UVRS",
                at::UVRS,
                4,
                Read,
                "The same of the layout's version: 1, the only one.",
            ),
            register(
                "DSAL",
                at::DSAL,
                4,
                ReadWrite,
                "Address of the page that the driver shares, lower half. 0 stops the device.",
            ),
            register("DSAH", at::DSAH, 4, ReadWrite, "Its upper half."),
            register(
                "CMD",
                at::CMD,
                4,
                Write,
                "Carries out a command; reads its answer, or 0, or an error.",
            ),
            register(
                "MACL",
                at::MACL,
                4,
                Write,
                "Reads the address's first four bytes. What is written waits for MACH.",
            ),
            register(
                "MACH",
                at::MACH,
                4,
                ReadWrite,
                "The last two, in bits 15:0. A write changes the whole address.",
            ),
            register(
                "ICR",
                at::ICR,
                4,
                ReadToClear,
                "For INTx alone: 1 while it is asserted. Reading lowers the pin.",
            ),
            register(
                "ECR",
                at::ECR,
                4,
                Write,
                "Ones clear events in the shared page: a queue has stopped, the link has changed. Reads 0.",
            ),
        ],
    },
    Block {
        name: "Interrupt masks (PT), one for each interrupt",
        bar: 0,
        base: at::IMR,
        repeated: Some((INTRS, at::STRIDE)),
        negotiated: false,
        registers: &[register(
            "IMR",
            0,
            4,
            ReadWrite,
            "1 masks; 0 lets through, and sends what is pending. Written once for each interrupt: an exit.",
        )],
    },
    Block {
        name: "Doorbells of transmit queues (PT)",
        bar: 0,
        base: at::TXPROD,
        repeated: Some((TX_QUEUES, at::STRIDE)),
        negotiated: false,
        registers: &[register(
            "TXPROD",
            0,
            4,
            Write,
            "There are packets. An eventfd of KVM's: the value says nothing that the ring does not.",
        )],
    },
    Block {
        name: "Doorbells of first receive rings (PT)",
        bar: 0,
        base: at::RXPROD,
        repeated: Some((RX_QUEUES, at::STRIDE)),
        negotiated: false,
        registers: &[register(
            "RXPROD",
            0,
            4,
            Write,
            "There are buffers. Asked for only while frames wait for some. An eventfd of KVM's.",
        )],
    },
    Block {
        name: "Doorbells of second receive rings (PT)",
        bar: 0,
        base: at::RXPROD2,
        repeated: Some((RX_QUEUES, at::STRIDE)),
        negotiated: false,
        registers: &[register("RXPROD2", 0, 4, Write, "Likewise.")],
    },
];
