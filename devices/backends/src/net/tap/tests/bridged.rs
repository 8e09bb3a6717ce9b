//! The contract, tried on two interfaces that a bridge of the host's kernel joins.

use super::super::{TapBackend, TapOptions};
use crate::net::testing::namespace::in_namespace;
use crate::net::testing::{PortEnd, conformance};
use crate::net::{NetBackend, Offloads};

#[test]
fn interfaces_conform() {
    in_namespace(|namespace| {
        let open = |name| {
            let backend = TapBackend::open(&TapOptions::new(name)).unwrap();
            let interface = namespace.interface(name);
            interface.disable_ipv6();
            interface.up();
            (backend, interface)
        };
        let ((near, one), (far, other)) = (open("near"), open("far"));
        if !near.info().native.contains(Offloads::USO4 | Offloads::USO6) {
            println!("skipped: this kernel has no USO, and does not pass it on");
            return;
        }
        if let Err(error) = namespace.bridge("bridge", &[&one, &other]) {
            println!("skipped: this kernel has no bridges: {error}");
            return;
        }
        conformance(&near, &mut PortEnd::new(&far, false));
    });
}
