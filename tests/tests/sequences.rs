//! The fuzz targets, on random bytes: what a coverage-guided run would find at once, found here.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The same inputs every time.
fn random_inputs(count: u32, target: fn(&[u8])) {
    let config = Config { cases: count, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let inputs = proptest::collection::vec(any::<u8>(), 0..2048);
    runner
        .run(&inputs, |input| {
            target(&input);
            Ok(())
        })
        .unwrap();
}

#[test]
fn virtio_blk_survives_random_sequences() {
    random_inputs(400, paraslot_tests::targets::virtio_blk);
}

#[test]
fn the_transport_survives_random_sequences() {
    random_inputs(400, paraslot_tests::targets::virtio_pci);
}

#[test]
fn ahci_survives_random_sequences() {
    random_inputs(400, paraslot_tests::targets::ahci);
}

#[test]
fn any_frame_is_parsed_summed_hashed_and_cut() {
    random_inputs(400, paraslot_tests::targets::frames);
}

#[test]
fn virtio_net_survives_random_sequences() {
    random_inputs(400, paraslot_tests::targets::virtio_net);
}

#[test]
fn any_command_ends_once() {
    random_inputs(1000, paraslot_tests::targets::cdbs);
}

#[test]
fn virtio_scsi_survives_random_sequences() {
    random_inputs(400, paraslot_tests::targets::virtio_scsi);
}

#[test]
fn pvscsi_survives_random_sequences() {
    random_inputs(400, paraslot_tests::targets::pvscsi);
}

#[test]
fn e1000_survives_random_sequences() {
    random_inputs(400, paraslot_tests::targets::e1000);
}

#[test]
fn vmxnet3_survives_random_sequences() {
    random_inputs(400, paraslot_tests::targets::vmxnet3);
}

#[test]
fn a_vfio_user_server_survives_any_client() {
    random_inputs(200, paraslot_tests::targets::vfio_user);
}
