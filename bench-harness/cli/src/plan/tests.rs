use clap::Parser;

use super::*;
use crate::args::CommandLine;

fn arguments(arguments: &[&str]) -> RunArgs {
    CommandLine::try_parse_from([&["paraslot"], arguments].concat()).unwrap().run
}

fn plan(given: &[&str]) -> Plan {
    Plan::new(&arguments(given), PlatformName::Kvm).unwrap()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.cells.iter().map(|cell| cell.name.as_str()).collect()
}

#[test]
fn the_usual_plan_is_the_whole_matrix() {
    let plan = plan(&[]);
    assert_eq!(plan.cells.len(), 3 * 2 * 2 * 2 * 2);
    assert!(plan.notes.is_empty());
    let mut names = names(&plan);
    assert_eq!(names[0], "virtio-blk/trap/randread/4k/qd1/poll");
    assert_eq!(names[1], "ahci/trap/randread/4k/qd1/poll");
    assert_eq!(names[47], "ahci/event/read/128k/qd32/interrupt");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 48);
}

/// Figures without a virtual machine must not be taken for others.
#[test]
fn without_a_virtual_machine_there_is_one_path() {
    let plan = Plan::new(&arguments(&[]), PlatformName::InProcess).unwrap();
    assert_eq!(plan.cells.len(), 24);
    assert!(plan.cells.iter().all(|cell| cell.path == Path::InProcess));
    let error = Plan::new(&arguments(&["--peer", "qemu"]), PlatformName::InProcess).unwrap_err();
    assert!(error.is::<Usage>());
}

#[test]
fn filters_choose_and_must_all_match() {
    assert_eq!(plan(&["--filter", "randwrite"]).cells.len(), 16);
    assert_eq!(plan(&["--filter", "/read/", "--filter", "qd1/*poll"]).cells.len(), 4);
    let error = Plan::new(&arguments(&["--filter", "tape"]), PlatformName::Kvm).unwrap_err();
    assert!(error.is::<Usage>());
    assert_eq!(
        error.to_string(),
        "nothing to measure has tape in its name: see paraslot run --list"
    );
}

#[test]
fn patterns_match_anywhere() {
    assert!(matches("", "abc"));
    assert!(matches("b", "abc"));
    assert!(matches("a*c", "abc"));
    assert!(matches("*c*", "abc"));
    assert!(!matches("c*a", "abc"));
    assert!(!matches("bb", "abc"));
    assert!(!matches("b*b", "abc"));
}

#[test]
fn an_image_of_the_users_is_not_written() {
    let read_only = plan(&["--device", "ahci,path=x", "--device", "virtio-blk,readonly=on"]);
    assert!(read_only.cells.iter().all(|cell| !cell.workload.writes()));
    assert_eq!(read_only.cells.len(), 32);
    assert_eq!(read_only.notes.len(), 2);
    let writing = plan(&["--device", "ahci,path=x,write=on"]);
    assert_eq!(writing.cells.len(), 24);
    assert!(writing.notes.is_empty());
}

#[test]
fn a_device_given_twice_has_a_number() {
    let plan =
        plan(&["--device", "ahci", "--device", "ahci,engine=threads", "--filter", "qd1/poll"]);
    assert_eq!(
        names(&plan)[..2],
        ["ahci#1/trap/randread/4k/qd1/poll", "ahci#2/trap/randread/4k/qd1/poll"]
    );
}

#[test]
fn a_peer_is_measured_in_between() {
    let plan = plan(&["--peer", "qemu", "--device", "ahci", "--device", "ahci,backend=memory"]);
    let first: Vec<_> = plan.cells.iter().take(4).map(|cell| (cell.device, cell.peer)).collect();
    let expected = [(0, None), (1, None), (0, Some(Peer::Qemu)), (0, None)];
    assert_eq!(first, expected);
    assert!(plan.cells[2].name.starts_with("qemu:ahci#1/trap/"));
    assert_eq!(plan.notes[0], "ahci#2: not with qemu (it has no backend=memory)");
    assert_eq!(plan.notes[1], "qemu: ahci has no event path there, its figures are of trap");
    assert_eq!(plan.notes.len(), 2);
}

#[test]
fn every_other_round_goes_backwards() {
    let plan = plan(&["--filter", "ahci/event/randread/4k/"]);
    assert_eq!(plan.round(0), [0, 1, 2, 3]);
    assert_eq!(plan.round(1), [3, 2, 1, 0]);
    assert_eq!(plan.round(2), plan.round(0));
}

#[test]
fn jobs_are_what_guests_take() {
    let times = Times { warm_up_ms: 5, measure_ms: 10, min_runs: 1, max_runs: 1 };
    let plan = plan(&[
        "--device",
        "ahci",
        "--device",
        "ahci,backend=null",
        "--device",
        "ahci,path=x,write=on",
        "--device",
        "ahci,backend=memory,verify=off",
    ]);
    for cell in &plan.cells {
        let spec = &plan.devices[cell.device];
        // An odd size is rounded down to whole blocks.
        let job = cell.job(spec, &times, (64 << 20) + 512, 3);
        assert_eq!(job.check(), Ok(()));
        assert_eq!(job.to_string().parse(), Ok(job));
        assert_eq!(job.span, 64 << 20);
        let known = match cell.device {
            0 => true,
            1 | 3 => false,
            _ => cell.workload.writes(),
        };
        assert_eq!(job.verify, known, "{}", cell.name);
    }
}
