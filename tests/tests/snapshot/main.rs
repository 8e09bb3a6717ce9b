//! Functions that are saved, thrown away and restored in others while they are used.

mod dirty;
mod disks;
mod mutated;
mod networks;
mod racing;
mod served;
mod stored;
mod watched;

use std::ops::Range;

use paraslot_drivers::Platform;
use paraslot_protocol::Device;
use paraslot_vmm::in_process::{InProcess, Machine, Run};
use vm_memory::{Bytes, GuestAddress};

const MEMORY: usize = 16 << 20;

/// Most operations of a job once its device is set up.
const JOB: u64 = 150;

/// The operations of a job before which its device moves: all of its first job's. The others are set
/// up in the same way, so there it is those of the job itself.
fn places(seen: &mut Vec<Device>, device: Device, operations: u64) -> Range<u64> {
    let first = !seen.contains(&device);
    seen.push(device);
    if first { 0..operations } else { operations.saturating_sub(JOB)..operations }
}

fn stepped() -> Machine {
    Machine::new(MEMORY, Run::Stepped(None))
}

/// All of the machine's memory that drivers have been given, as a number that tells it from any other.
fn fingerprint(machine: &InProcess) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let end = machine.allocate(4096).expect("the end of what was given").physical(0);
    let memory = machine.host(paraslot_pci::Bdf::root(31)).memory;
    let mut hasher = DefaultHasher::new();
    let mut piece = [0; 1 << 16];
    for at in (0..end).step_by(piece.len()) {
        let len = piece.len().min(usize::try_from(end - at).unwrap());
        memory.read_slice(&mut piece[..len], GuestAddress(at)).unwrap();
        hasher.write(&piece[..len]);
    }
    hasher.finish()
}
