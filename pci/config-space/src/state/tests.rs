use std::sync::Arc;

use paraslot_spec::pci::{Command, capability, express, header, msi, msix, pm};
use proptest::prelude::*;

use super::*;
use crate::testing::{Host, MSIX_BAR, PENDING, TABLE, VECTORS, build, builder, function};

/// What a guest and a worker can do to a function.
#[derive(Clone, Debug)]
enum Act {
    Config(u16, Vec<u8>),
    Msix(u64, Vec<u8>),
    Raise(u16),
    RaiseMsi,
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..8);
    let (config, _) = function();
    // The registers that switch things, more often than chance would have them.
    let switches = vec![
        header::COMMAND,
        config.find(capability::POWER_MANAGEMENT) + pm::CONTROL,
        config.find(capability::MSI) + msi::CONTROL,
        config.find(capability::MSI) + msi::MASK_64,
        config.find(capability::MSI_X) + msix::CONTROL,
        config.find(capability::PCI_EXPRESS) + express::DEVICE_CONTROL,
    ];
    prop_oneof![
        (0..256u16, bytes()).prop_map(|(at, data)| Act::Config(at, data)),
        (prop::sample::select(switches), bytes()).prop_map(|(at, data)| Act::Config(at, data)),
        Just(Act::Config(header::COMMAND, vec![0x06])),
        Just(Act::Config(config.find(capability::MSI_X) + msix::CONTROL + 1, vec![0x80])),
        (0..u64::from(VECTORS) * 16, bytes()).prop_map(|(at, data)| Act::Msix(TABLE + at, data)),
        (0..VECTORS).prop_map(Act::Raise),
        Just(Act::RaiseMsi),
    ]
}

fn perform(config: &mut ConfigSpace, act: &Act) {
    match act {
        Act::Config(at, data) => drop(config.write(*at, data)),
        Act::Msix(at, data) => assert!(config.msix_write(MSIX_BAR, *at, data)),
        Act::Raise(vector) => config.interrupts().trigger_msix(*vector),
        Act::RaiseMsi => config.interrupts().trigger_msi(),
    }
}

/// All that the guest can see, and what follows for the host.
fn seen(config: &ConfigSpace) -> (String, Vec<u8>, Vec<u8>) {
    let mut space = vec![0; 4096];
    config.read(0, &mut space);
    let mut table = vec![0; usize::from(VECTORS) * 16];
    assert!(config.msix_read(MSIX_BAR, TABLE, &mut table));
    let mut pending = vec![0; 16];
    assert!(config.msix_read(MSIX_BAR, PENDING, &mut pending));
    let host = format!("{:?} {}", config.bars(), config.bus_master().enabled());
    (host, space, [table, pending].concat())
}

fn restored(state: &ConfigState) -> Result<(ConfigSpace, Arc<Host>), StateError> {
    let (mut config, host) = function();
    config.restore(state)?;
    Ok((config, host))
}

proptest! {
    /// Whatever a guest has done, the restored function looks the same, and goes on the same: it sends the
    /// same messages after the same acts.
    #[test]
    fn a_restored_function_goes_on_as_the_saved_one(
        before in prop::collection::vec(act(), 0..40),
        after in prop::collection::vec(act(), 0..20),
    ) {
        let (mut config, host) = function();
        before.iter().for_each(|act| perform(&mut config, act));
        host.take_messages();

        let text = serde_json::to_string(&config.save()).unwrap();
        let (mut other, new_host) = restored(&serde_json::from_str(&text).unwrap()).unwrap();
        prop_assert_eq!(seen(&config), seen(&other));
        prop_assert_eq!(new_host.take_messages(), [], "nothing that was sent is sent again");
        for act in &after {
            perform(&mut config, act);
            perform(&mut other, act);
            prop_assert_eq!(host.take_messages(), new_host.take_messages());
        }
        prop_assert_eq!(seen(&config), seen(&other));
    }

    /// Any bytes for registers and table: refused, or a state that the guest could have written. CVE-2014-0182
    /// and its kin, state that was believed.
    #[test]
    fn a_mutated_state_is_refused_or_harmless(
        before in prop::collection::vec(act(), 0..20),
        registers in prop::collection::vec((0..256usize, any::<u8>()), 0..3),
        table in prop::collection::vec((0..usize::from(VECTORS) * 16, any::<u8>()), 0..3),
        pending in prop::collection::vec(0..VECTORS + 1, 0..3),
    ) {
        let (mut config, _) = function();
        before.iter().for_each(|act| perform(&mut config, act));
        let mut state = config.save();
        for (at, byte) in registers {
            state.registers[at] = byte;
        }
        let msix = state.msix.as_mut().unwrap();
        for (at, byte) in table {
            msix.table[at] = byte;
        }
        msix.pending.extend(pending);

        let (mut other, host) = function();
        if other.restore(&state).is_err() {
            prop_assert_eq!(seen(&other), seen(&function().0), "as after a reset");
            prop_assert!(host.take_sent().is_empty());
            return Ok(());
        }
        // Writing what is there is possible for a guest, and changes nothing.
        let (mut again, _) = function();
        let (_, space, mut table) = seen(&other);
        table.truncate(usize::from(VECTORS) * 16);
        let _ = again.write(0, &space);
        prop_assert!(again.msix_write(MSIX_BAR, TABLE, &table));
        let (saved, wanted) = (again.save(), other.save());
        prop_assert_eq!(saved.registers, wanted.registers);
        prop_assert_eq!(saved.msix.unwrap().table, wanted.msix.unwrap().table);
    }
}

#[test]
fn a_message_that_was_pending_is_sent_when_it_is_unmasked() {
    let (mut config, _) = function();
    let _ = config.set_command(Command::MEMORY | Command::BUS_MASTER);
    let _ = config.control(capability::MSI_X, msix::CONTROL, msix::ENABLE);
    let entry = TABLE + 16 * 65;
    assert!(config.msix_write(MSIX_BAR, entry, &0xfee0_0000_u64.to_le_bytes()));
    config.interrupts().trigger_msix(65);

    let (mut other, host) = restored(&config.save()).unwrap();
    assert!(host.take_sent().is_empty());
    assert!(other.msix_write(MSIX_BAR, entry + 12, &0_u32.to_le_bytes()));
    assert_eq!(host.take_sent(), [65]);
}

#[test]
fn the_state_of_a_function_built_otherwise_is_refused() {
    let host = Arc::new(Host::default());
    let state = build(&host).save();
    let refused = |mut config: ConfigSpace, state: &ConfigState| {
        let error = config.restore(state).unwrap_err();
        assert!(matches!(error, StateError::Impossible(_)), "{error}");
        assert_eq!(
            config.bars().map(|bar| bar.map(|bar| bar.enabled)),
            [Some(false), Some(false), Some(false), None, Some(false), None, Some(false)]
        );
    };
    // One more capability, though there is room for it.
    let mut more = builder();
    more.capability(0x09, &[5, 1, 2, 3], &[]);
    refused(more.build(host.clone(), host.clone()), &state);

    let without = ConfigState { msix: None, ..state.clone() };
    refused(build(&host), &without);
    let mut short = state.clone();
    short.registers.truncate(255);
    refused(build(&host), &short);
    let mut asleep = state.clone();
    let at = build(&host).find(capability::POWER_MANAGEMENT) + pm::CONTROL;
    asleep.registers[usize::from(at)] |= 1;
    refused(build(&host), &asleep);
    let mut many = state;
    many.msix.as_mut().unwrap().pending = vec![VECTORS];
    refused(build(&host), &many);
}
