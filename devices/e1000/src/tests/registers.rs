use paraslot_spec::e1000::{CtrlExt, Eecd, statistics};

use super::*;
use crate::registers::{ARRAYS, REGISTERS};

#[test]
fn it_is_an_82540em() {
    let mut machine = Machine::off();
    assert_eq!(machine.config(0), 0x100e_8086);
    assert_eq!(machine.config(8), 0x0200_0002);
    assert_eq!(machine.config(0x2c), 0x1100_1af4);
    let layout = machine.nic.layout();
    let sizes = layout.bars.map(|bar| bar.map(|bar| bar.size));
    assert_eq!(sizes, [Some(128 << 10), Some(64), None, None, None, None, None]);
    assert!(layout.intx && layout.msi_vectors == 0 && layout.msix_vectors == 0);
    assert_eq!(machine.config(0x3c) >> 8 & 0xff, 1);
}

#[test]
fn after_power_on_registers_hold_what_the_manual_says() {
    let mut machine = Machine::off();
    for register in &REGISTERS {
        if !matches!(register.offset, STATUS | EECD) {
            assert_eq!(machine.read(register.offset), register.reset, "{}", register.name);
        }
    }
    assert_eq!(machine.read(RAL), 0x3322_1102);
    assert_eq!(machine.read(RAH), 0x8000_5544);
    assert_eq!(machine.read(rah(1)), 0);
    let status = Status::from_bits_retain(machine.read(STATUS));
    let gigabit = Status::SPEED_1000 | Status::ASDV_1000;
    assert_eq!(status, Status::FD | Status::LU | gigabit);
    for offset in [ICR, IMS, ICS, ITR, 0x0024, 0x0f00, 0x5b50, 0x8800, PBM, 0x1_fffc] {
        assert_eq!(machine.read(offset), 0, "{offset:#x}");
    }
}

#[test]
fn registers_keep_their_bits_and_no_others() {
    let mut machine = Machine::off();
    for register in &REGISTERS {
        if matches!(register.offset, CTRL | MDIC | EERD | EECD | STATUS) {
            continue;
        }
        for value in [0x5a5a_5a5a, 0xa5a5_a5a5, u32::MAX, 0] {
            machine.write(register.offset, value);
            let kept = register.reset & !register.writable | value & register.writable;
            let read = machine.read(register.offset);
            if register.offset == PBA {
                assert_eq!(read & 0xffff, value & 0x7f);
                assert_eq!(read >> 16, 64u32.saturating_sub(value & 0x7f));
            } else {
                assert_eq!(read, kept, "{} {value:#x}", register.name);
            }
        }
    }
    for (name, first, count, distance, writable) in ARRAYS {
        for offset in (first..).step_by(distance as usize).take(count) {
            machine.write(offset, u32::MAX);
            assert_eq!(machine.read(offset), writable, "{name}");
            machine.write(offset, 0);
            assert_eq!(machine.read(offset), 0, "{name}");
        }
    }
    machine.write(STATUS, 0);
    assert_ne!(machine.read(STATUS), 0);
}

// What Linux's self test expects of the registers: pattern tests, with masks, and what is to be kept
// of RCTL.
#[test]
fn the_self_test_of_linux_passes() {
    let mut machine = Machine::off();
    let all = u32::MAX;
    let mut tests = vec![
        (FCAL, all, all),
        (FCAH, 0xffff, all),
        (FCT, 0xffff, all),
        (VET, 0xffff, all),
        (RDTR, 0xffff, all),
        (RDBAH, all, all),
        (RDLEN, 0xf_ff80, 0xf_ffff),
        (RDH, 0xffff, 0xffff),
        (RDT, 0xffff, 0xffff),
        (FCRTH, 0xfff8, 0xfff8),
        (FCTTV, 0xffff, all),
        (TIPG, 0x3fff_ffff, all),
        (TDBAH, all, all),
        (TDLEN, 0xf_ff80, 0xf_ffff),
        (RDBAL, 0xffff_fff0, all),
        (TXCW, 0xc000_ffff, 0xffff),
        (TDBAL, 0xffff_fff0, all),
        (TIDV, 0xffff, 0xffff),
    ];
    tests.extend((0..15).map(|entry| (rah(entry), 0x8003_ffff, all)));
    tests.extend((0..128).map(|word| (MTA + word * 4, all, all)));
    for (register, mask, written) in tests {
        for pattern in [0x5a5a_5a5a, 0xa5a5_a5a5, 0, all] {
            machine.write(register, pattern & written);
            assert_eq!(machine.read(register), pattern & written & mask, "{register:#x}");
        }
    }
    for (register, mask, written) in
        [(RCTL, all, 0), (RCTL, 0x06df_b3fe, 0x003f_fffb), (TCTL, all, 0), (RCTL, 0x06df_b3fe, all)]
    {
        machine.write(register, written & mask);
        assert_eq!(machine.read(register) & mask, written & mask, "{register:#x}");
        machine.run();
    }
    // Reserved causes, too, can be set by software.
    machine.write(RCTL, 0);
    for cause in (0..10).map(|bit| 1 << bit) {
        machine.write(IMC, all);
        machine.read(ICR);
        machine.write(ICS, cause);
        assert!(!machine.level());
        machine.write(IMS, cause);
        assert!(machine.level());
        assert_eq!(machine.read(ICR), cause);
        assert!(!machine.level());
    }
}

#[test]
fn accesses_of_any_width_and_place_are_answered() {
    let mut machine = Machine::off();
    machine.write(FCAL, 0x4433_2211);
    machine.write(FCAH, 0x6655);
    let mut data = [0; 8];
    machine.nic.bar_read(MEMORY_BAR, u64::from(FCAL) + 1, &mut data[..6]);
    assert_eq!(data, [0x22, 0x33, 0x44, 0x55, 0x66, 0, 0, 0]);
    // A byte, and a word across two registers; neither reads anything to complete the write.
    machine.nic.bar_write(MEMORY_BAR, u64::from(FCAL) + 2, &[0xaa]);
    machine.nic.bar_write(MEMORY_BAR, u64::from(FCAL) + 3, &[0xbb, 0xcc]);
    assert_eq!((machine.read(FCAL), machine.read(FCAH)), (0xbbaa_2211, 0x66cc));
    machine.write(ICS, 0xffff);
    machine.nic.bar_write(MEMORY_BAR, u64::from(IMS), &[0xff]);
    assert_eq!((machine.read(IMS), machine.read(ICS)), (0xff, 0xffff));
    let mut byte = [0];
    machine.nic.bar_read(MEMORY_BAR, u64::from(ICR) + 1, &mut byte);
    assert_eq!((byte[0], machine.read(ICR)), (0xff, 0));
    // The tails, by bytes.
    machine.nic.bar_write(MEMORY_BAR, u64::from(TDT) + 1, &[0x12]);
    machine.nic.bar_write(MEMORY_BAR, u64::from(TDT), &[0x34, 0x56, 0x78, 0x9a]);
    assert_eq!(machine.read(TDT), 0x5634);
    machine.nic.bar_write(MEMORY_BAR, u64::from(ITR) + 1, &[1]);
    assert_eq!(machine.read(ITR), 0x100);
    // Beyond the end, and other BARs.
    for (bar, offset) in [(0, 128 << 10), (0, u64::MAX - 1), (1, 64), (2, 0), (6, 0)] {
        let mut data = [0; 8];
        machine.nic.bar_write(bar, offset, &[0; 8]);
        machine.nic.bar_read(bar, offset, &mut data);
        assert_eq!(data, [0xff; 8], "{bar} {offset:#x}");
    }
}

#[test]
fn registers_are_reached_through_io_ports() {
    let mut machine = Machine::off();
    let nic = &mut machine.nic;
    let mut data = [0; 4];
    nic.bar_write(IO_BAR, 0, &FCAL.to_le_bytes());
    nic.bar_write(IO_BAR, 4, &0x1234_5678u32.to_le_bytes());
    nic.bar_read(IO_BAR, 4, &mut data);
    assert_eq!(u32::from_le_bytes(data), 0x1234_5678);
    nic.bar_read(IO_BAR, 0, &mut data);
    assert_eq!(u32::from_le_bytes(data), FCAL);
    // Nothing is behind the registers, and nothing behind the window's two ports.
    nic.bar_write(IO_BAR, 0, &0x2_0000u32.to_le_bytes());
    nic.bar_write(IO_BAR, 4, &[0xff; 4]);
    nic.bar_read(IO_BAR, 4, &mut data);
    assert_eq!(data, [0; 4]);
    nic.bar_read(IO_BAR, 8, &mut data);
    assert_eq!(data, [0; 4]);
    assert_eq!(machine.read(FCAL), 0x1234_5678);
    // As Linux resets the controller.
    machine.nic.bar_write(IO_BAR, 0, &CTRL.to_le_bytes());
    machine.nic.bar_write(IO_BAR, 4, &Ctrl::RST.bits().to_le_bytes());
    assert_eq!((machine.read(FCAL), machine.read(CTRL)), (0, 0x201));
}

#[test]
fn control_bits_that_act_clear_themselves() {
    let mut machine = Machine::off();
    machine.write(CTRL, !(Ctrl::RST | Ctrl::PHY_RST).bits());
    let kept = Ctrl::all() - Ctrl::RST - Ctrl::PHY_RST;
    assert_eq!(machine.read(CTRL), kept.bits());
    assert_eq!(machine.read(CTRL_DUP), kept.bits());
    machine.write(ral(0), 0);
    machine.write(rah(0), 0);
    machine.write(CTRL_EXT, (CtrlExt::EE_RST | CtrlExt::ASDCHK | CtrlExt::SPD_BYPS).bits());
    assert_eq!(machine.read(CTRL_EXT), CtrlExt::SPD_BYPS.bits());
    assert_eq!((machine.read(RAL), machine.read(RAH)), (0x3322_1102, 0x8000_5544));
    machine.write(TCTL, Tctl::SWXOFF.bits());
    assert_eq!(machine.read(TCTL), 0);
    machine.write(RDTR, FLUSH | 5);
    assert_eq!(machine.read(RDTR), 5);
    machine.write(EECD, Eecd::REQ.bits());
    assert_eq!(machine.read(EECD) & Eecd::GNT.bits(), Eecd::GNT.bits());
}

#[test]
fn forced_speed_and_duplex_show_in_the_status() {
    let mut machine = Machine::off();
    machine.write(CTRL, (Ctrl::FRCSPD | Ctrl::FRCDPLX | Ctrl::SPEED_100).bits());
    let status = Status::from_bits_retain(machine.read(STATUS));
    assert_eq!(status, Status::LU | Status::SPEED_100 | Status::ASDV_1000);
}

#[test]
fn statistics_are_read_only_and_clear_when_read() {
    let mut machine = Machine::new();
    machine.arrive(&frame(100));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    machine.write(statistics::GPRC, 77);
    let expected = [
        (statistics::TPR, 1),
        (statistics::GPRC, 1),
        (statistics::PRC127, 1),
        (statistics::GORCL, 104),
        (statistics::GORCH, 0),
        (statistics::TORL, 104),
        (statistics::TPT, 1),
        (statistics::GPTC, 1),
        (statistics::PTC64, 1),
        (statistics::GOTCL, 64),
        (statistics::TOTL, 64),
        (statistics::BPRC, 0),
        (statistics::MPTC, 0),
    ];
    for (register, value) in expected {
        assert_eq!(machine.read(register), value, "{register:#x}");
    }
    // Of the pairs, the high half clears.
    for register in [statistics::TOTL, statistics::TORL, statistics::GOTCL] {
        assert_ne!(machine.read(register), 0);
        assert_eq!((machine.read(register + 4), machine.read(register)), (0, 0));
    }
    assert_eq!(machine.read(statistics::GPRC), 0);
}

#[test]
fn options_that_cannot_be_served_are_refused() {
    for mac in [[0; 6], [0xff; 6], [1, 2, 3, 4, 5, 6]] {
        let (backend, _) = ScriptedNet::new(1);
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
        let none = Arc::new(NoInterrupts);
        let executor = Arc::new(ManualExecutor::new());
        let host = Host { memory: Arc::new(memory), msi: none.clone(), intx: none, executor };
        assert!(E1000::new(Arc::new(backend), Options::new(mac), host).is_err());
    }
}
