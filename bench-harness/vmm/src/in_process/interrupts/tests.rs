use std::sync::mpsc::channel;
use std::thread;

use super::*;

const A: Bdf = Bdf::root(3);
const B: Bdf = Bdf::root(7);
const INDEX: u8 = 5;

fn pin(controller: &Arc<Controller>, bdf: Bdf) -> FunctionInterrupts {
    FunctionInterrupts::new(bdf, controller.clone())
}

#[test]
fn a_pin_is_taken_once_until_its_handling_ends() {
    let controller = Arc::new(Controller::new(false));
    assert!(controller.connect_pin(A, INDEX));
    let line = pin(&controller, A);
    line.set_level(true);
    assert_eq!(controller.taken(INDEX), 1);
    // Neither a pulse nor the level that stays is seen while it is being handled.
    line.set_level(false);
    line.set_level(true);
    assert_eq!(controller.taken(INDEX), 1);
    // It is asserted still.
    controller.end(INDEX);
    assert_eq!(controller.taken(INDEX), 2);
    line.set_level(false);
    controller.end(INDEX);
    controller.end(INDEX);
    assert_eq!(controller.taken(INDEX), 2);
    line.set_level(true);
    assert_eq!(controller.taken(INDEX), 3);
    assert_eq!((controller.strays(), controller.taken(INDEX + 1)), (0, 0));
}

#[test]
fn a_shared_pin_is_asserted_while_any_function_asserts_it() {
    let controller = Arc::new(Controller::new(false));
    let lines = [A, B].map(|bdf| {
        assert!(controller.connect_pin(bdf, INDEX));
        pin(&controller, bdf)
    });
    lines[0].set_level(true);
    lines[1].set_level(true);
    lines[0].set_level(false);
    controller.end(INDEX);
    assert_eq!(controller.taken(INDEX), 2);
    lines[1].set_level(false);
    controller.end(INDEX);
    assert_eq!(controller.taken(INDEX), 2);
}

#[test]
fn what_is_asserted_before_it_is_connected_is_a_stray_and_taken_then() {
    let controller = Arc::new(Controller::new(false));
    pin(&controller, A).set_level(true);
    assert_eq!((controller.strays(), controller.taken(INDEX)), (1, 0));
    assert!(!controller.connect_pin(A, 32));
    assert!(controller.connect_pin(A, INDEX));
    assert_eq!((controller.strays(), controller.taken(INDEX)), (1, 1));
    // Another function's level is its own.
    pin(&controller, B).set_level(false);
    assert_eq!(controller.strays(), 2);
    controller.end(INDEX);
    assert_eq!(controller.taken(INDEX), 2);
}

/// Who waits is woken by a pin and by a message, be it waiting for eventfds or not.
#[test]
fn a_wait_ends_with_the_interrupt() {
    for (events, connected) in [(false, false), (true, false), (true, true)] {
        let controller = Arc::new(Controller::new(events));
        let line = pin(&controller, A);
        assert!(controller.connect_pin(A, INDEX));
        let sent = DeviceMessage { address: ADDRESS, data: BASE + u32::from(INDEX) };
        line.update(0, sent, false);
        let event = if connected { line.event(1) } else { None };
        assert_eq!(event.is_some(), connected);
        for (round, raise) in
            [(0, &(|| line.set_level(true)) as &dyn Fn()), (1, &|| line.trigger(0))]
        {
            let (ended, waited) = channel();
            let other = controller.clone();
            let thread = thread::spawn(move || {
                let _ = ended.send(());
                other.wait(INDEX, round);
                let _ = ended.send(());
            });
            // So that it most likely waits by then.
            waited.recv().unwrap();
            thread::sleep(Duration::from_millis(10));
            raise();
            // Much less than a wait that nothing ends, and more than a busy machine needs.
            assert!(waited.recv_timeout(WAIT / 10).is_ok(), "{events} {connected} {round}");
            thread.join().unwrap();
            assert_eq!(controller.taken(INDEX), round + 1);
        }
    }
}
