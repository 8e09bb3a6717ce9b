//! What may become of the interface while a guest uses it.

use paraslot_drivers::Nic;

use super::guest::{Guest, Step};
use super::machine::{GUEST, Host, MAC};
use super::traffic;

/// Sends frames, until the device has counted some as lost because there was nobody to take them.
fn send_in_vain<N: Nic>(host: &Host, guest: &mut Guest<'_, N>) {
    let before = (host.statistics)().send_down;
    traffic::speak(guest, || {
        if (host.statistics)().send_down > before { Step::Done } else { Step::Waits }
    });
}

/// It is set down, and up again, and removed; the guest's traffic stops, goes on, and stops.
pub(crate) fn down_and_up_and_gone<N: Nic>(host: &Host, mut guest: Guest<'_, N>) {
    traffic::echo_requests(&mut guest);
    for _ in 0..2 {
        host.interface.down();
        send_in_vain(host, &mut guest);
        host.interface.up();
        host.interface.set_neighbour(GUEST, MAC);
        traffic::echo_requests(&mut guest);
    }
    host.interface.remove();
    send_in_vain(host, &mut guest);
    let seen = (host.statistics)();
    assert_eq!(seen.send_errors + seen.send_invalid + seen.send_no_buffers, 0, "{seen:?}");
}
