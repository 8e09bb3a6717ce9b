//! Extended capabilities (PCI Express Base 5.0, 7.6 to 7.9).

use super::{Capability, byte, dword, word};

/// Names of the IDs (PCI Code and ID Assignment Specification 1.11, section 3).
const NAMES: [&str; 0x2b] = [
    "Null",
    "Advanced Error Reporting",
    "Virtual Channel",
    "Device Serial Number",
    "Power Budgeting",
    "Root Complex Link Declaration",
    "Root Complex Internal Link Control",
    "Root Complex Event Collector",
    "Multi-Function Virtual Channel",
    "Virtual Channel",
    "Root Complex Register Block",
    "Vendor Specific",
    "Configuration Access Correlation",
    "Access Control Services",
    "Alternative Routing-ID",
    "Address Translation Services",
    "Single Root I/O Virtualization",
    "Multi Root I/O Virtualization",
    "Multicast",
    "Page Request",
    "Reserved for AMD",
    "Resizable BAR",
    "Dynamic Power Allocation",
    "TLP Processing Hints",
    "Latency Tolerance Reporting",
    "Secondary PCI Express",
    "Protocol Multiplexing",
    "Process Address Space ID",
    "LN Requester",
    "Downstream Port Containment",
    "L1 PM Substates",
    "Precision Time Measurement",
    "PCI Express over M-PHY",
    "Function Readiness Status Queuing",
    "Readiness Time Reporting",
    "Designated Vendor-Specific",
    "VF Resizable BAR",
    "Data Link Feature",
    "Physical Layer 16.0 GT/s",
    "Lane Margining at the Receiver",
    "Hierarchy ID",
    "Native PCI Express Enclosure Management",
    "Physical Layer 32.0 GT/s",
];

/// Device Serial Number (7.9.3).
const SERIAL: u16 = 0x03;
/// Vendor Specific (7.9.5).
const VENDOR: u16 = 0x0b;
/// Access Control Services (7.7.11).
const ACCESS_CONTROL: u16 = 0x0d;
/// Single Root I/O Virtualization (9.3.3).
const SR_IOV: u16 = 0x10;

/// Reads the one at `at`.
pub(super) fn read(config: &[u8], at: u16) -> Capability {
    let bytes = config.get(usize::from(at)..).unwrap_or_default();
    let id = word(bytes, 0);
    let mut facts = vec![format!("version {}", byte(bytes, 2) & 0xf)];
    match id {
        SERIAL => {
            let serial =
                dword(bytes, 8).to_be_bytes().into_iter().chain(dword(bytes, 4).to_be_bytes());
            let text: Vec<String> = serial.map(|byte| format!("{byte:02x}")).collect();
            facts.push(text.join("-"));
        }
        VENDOR => {
            let head = dword(bytes, 4);
            facts.push(format!("{:#06x}, {} bytes", head & 0xffff, head >> 20));
        }
        ACCESS_CONTROL => facts.extend(access_control(word(bytes, 4))),
        SR_IOV => {
            let (total, enabled) = (word(bytes, 0x0e), word(bytes, 0x10));
            facts.push(format!("{total} virtual functions, {enabled} enabled"));
            facts.push(format!("their device ID {:#06x}", word(bytes, 0x1a)));
        }
        _ => {}
    }
    let name = NAMES.get(usize::from(id)).copied().unwrap_or_default();
    Capability { offset: at, id, name, facts }
}

/// What it can keep apart: without it functions behind one bridge may reach each other, and are in one IOMMU
/// group.
fn access_control(capabilities: u16) -> Option<String> {
    const NAMES: [(u16, &str); 7] = [
        (1 << 0, "source validation"),
        (1 << 1, "translation blocking"),
        (1 << 2, "request redirect"),
        (1 << 3, "completion redirect"),
        (1 << 4, "upstream forwarding"),
        (1 << 5, "egress control"),
        (1 << 6, "direct translated"),
    ];
    let has = NAMES.iter().filter(|(bit, _)| capabilities & bit != 0).map(|(_, name)| *name);
    let list: Vec<&str> = has.collect();
    (!list.is_empty()).then(|| list.join(", "))
}
