//! Saved in one HBA, restored in another.

mod stored;

use paraslot_backends::block::testing::{Event as Operation, GatedBackend, Log, RecordingBackend};
use paraslot_device::StateError;
use paraslot_spec::ahci::sctl;
use paraslot_spec::ata::{set_features as feature, smart};
use paraslot_spec::scsi::opcode;

use super::packet::{by_dma, by_pio, disc, drive, options, read_10};
use super::*;

/// What its host sees of a machine, apart from the results of the driver's accesses.
#[derive(PartialEq)]
struct Seen {
    results: Vec<u32>,
    memory: Vec<u8>,
    operations: Vec<Operation>,
    messages: usize,
    level: bool,
    state: String,
}

/// Builds an HBA time and again, over the same image.
type Build = Arc<dyn Fn() -> Options>;

impl Machine {
    /// Another HBA takes over; its guest's memory stays.
    pub(super) fn move_to(&mut self, options: Options) {
        self.ahci.pause().unwrap();
        let text = self.saved();
        assert_eq!(self.saved(), text, "saving changes nothing");
        let bars = self.ahci.bars();
        self.go_on_with(options, &text);
        assert_eq!(self.ahci.bars(), bars);
    }

    /// An HBA that was just built takes `text` over.
    pub(super) fn go_on_with(&mut self, options: Options, text: &str) {
        self.replace(options);
        self.ahci.restore(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(self.saved(), text, "what was restored is what was saved");
        self.ahci.resume().unwrap();
    }

    /// An HBA that was just built is where the old one was, and paused.
    fn replace(&mut self, options: Options) {
        let executor = ManualExecutor::new();
        let host = Host {
            memory: self.memory.clone(),
            msi: self.interrupts.clone(),
            intx: self.interrupts.clone(),
            executor: Arc::new(executor.clone()),
        };
        let ahci = Ahci::new(options, host).unwrap();
        drop(std::mem::replace(&mut self.ahci, ahci));
        self.executor = executor;
        self.ahci.pause().unwrap();
        *self.interrupts.page.lock().unwrap() = Some(self.ahci.layout().windows[0].page.clone());
    }

    /// The state of a paused HBA as text.
    fn saved(&mut self) -> String {
        serde_json::to_string(&self.ahci.save().unwrap()).unwrap()
    }

    /// The state of a running one.
    pub(super) fn snapshot(&mut self) -> SavedState {
        self.ahci.pause().unwrap();
        let state = self.ahci.save().unwrap();
        self.ahci.resume().unwrap();
        state
    }

    /// Runs, notes what a driver looks at after an interrupt, and acknowledges it.
    fn note(&mut self, results: &mut Vec<u32>) {
        self.run();
        for offset in [port::IS, port::TFD, port::CI, port::SACT, port::SERR, port::CMD] {
            results.push(self.get(offset));
        }
        self.acknowledge();
    }

    /// The same, and goes on after an error.
    fn note_and_recover(&mut self, results: &mut Vec<u32>) {
        self.note(results);
        self.command_off(PortCommand::ST);
        self.run();
        self.set(port::SERR, u32::MAX);
        self.acknowledge();
        self.command_on(PortCommand::ST);
    }

    fn go(&mut self, fis: &RegisterH2d, len: u32, results: &mut Vec<u32>) {
        let prds: Vec<_> = (len != 0).then(|| Prd::new(data_at(0), len)).into_iter().collect();
        self.prepare(0, fis, &prds, 0);
        self.set(port::CI, 1);
        self.note(results);
    }

    /// What a driver does that has all of it to do with a disk.
    fn drive_disk(&mut self) -> Vec<u32> {
        let mut results = Vec::new();
        let done = &mut results;
        self.start();
        self.go(&RegisterH2d::command(command::IDENTIFY_DEVICE), 512, done);
        self.go(&set_features(feature::DISABLE_WRITE_CACHE, 0), 0, done);
        self.go(&set_features(feature::TRANSFER_MODE, 0x42), 0, done);
        self.go(&set_features(feature::DISABLE_REVERT, 0), 0, done);
        let mut multiple = RegisterH2d::command(command::SET_MULTIPLE_MODE);
        multiple.count = 4.into();
        self.go(&multiple, 0, done);
        self.fill(data_at(0), &[0x77; 2048]);
        self.go(&sectors(command::WRITE_DMA_EXT, 64, 4), 2048, done);
        self.go(&sectors(command::READ_SECTORS, 65, 2), 1024, done);
        // Queued ones, some of which are issued while others are under way, and one that fails.
        for tag in 1..4 {
            let read = queued(command::READ_FPDMA_QUEUED, tag, 8 * u64::from(tag), 2);
            self.prepare(tag, &read, &[Prd::new(data_at(tag), 1024)], 0);
        }
        self.issue_queued(0b0010);
        self.issue_queued(0b1100);
        self.note(done);
        let beyond = queued(command::WRITE_FPDMA_QUEUED, 2, SECTORS, 1);
        self.prepare(2, &beyond, &[Prd::new(data_at(2), 512)], 0);
        self.issue_queued(0b1110);
        self.note_and_recover(done);
        let mut log = RegisterH2d::command(command::READ_LOG_EXT);
        (log.lba[0], log.count) = (0x10, 1.into());
        self.go(&sectors(command::READ_DMA_EXT, 0, 1), 512, done);
        self.note_and_recover(done);
        self.go(&log, 512, done);
        self.go(&sectors(command::READ_DMA_EXT, SECTORS, 1), 512, done);
        self.note_and_recover(done);
        let mut data = RegisterH2d::command(command::SMART);
        data.features = smart::subcommand::READ_DATA;
        data.lba[1..].copy_from_slice(&smart::SIGNATURE);
        self.go(&data, 512, done);
        self.go(&RegisterH2d::command(command::STANDBY_IMMEDIATE), 0, done);
        self.go(&RegisterH2d::command(command::CHECK_POWER_MODE), 0, done);
        // A soft reset, with a command that nobody answers while it is held.
        let mut control = RegisterH2d { flags: 0, control: 4, ..RegisterH2d::command(0) };
        self.go(&control, 0, done);
        self.go(&sectors(command::READ_DMA_EXT, 0, 1), 512, done);
        self.command_off(PortCommand::ST);
        self.run();
        self.command_on(PortCommand::CLO);
        self.command_on(PortCommand::ST);
        control.control = 0;
        self.go(&control, 0, done);
        self.go(&RegisterH2d::command(command::IDENTIFY_DEVICE), 512, done);
        // COMRESET, and a signature that waits for FRE.
        self.command_off(PortCommand::ST);
        self.command_off(PortCommand::FRE);
        self.set(port::SCTL, sctl::DET_COMRESET);
        done.push(self.get(port::SSTS));
        self.set(port::SCTL, 0);
        self.run();
        done.push(self.get(port::SIG));
        self.command_on(PortCommand::FRE);
        self.run();
        done.push(self.get(port::SIG));
        self.command_on(PortCommand::ST);
        self.go(&sectors(command::READ_DMA_EXT, 3, 1), 512, done);
        // While the HBA is reset, the driver comes back too early.
        self.write(host::GHC, Ghc::HR.bits());
        done.push(self.read(host::GHC));
        self.run();
        done.push(self.read(host::GHC));
        self.start();
        self.go(&sectors(command::READ_DMA_EXT, 4, 1), 512, done);
        results
    }

    /// What a driver does that has all of it to do with a drive.
    fn drive_drive(&mut self) -> Vec<u32> {
        let mut results = Vec::new();
        let done = &mut results;
        self.start();
        let mut send = |this: &mut Self, fis: &RegisterH2d, cdb: &[u8], len: u32| {
            let prds: Vec<_> = (len != 0).then(|| Prd::new(data_at(0), len)).into_iter().collect();
            this.prepare_packet(0, fis, cdb, &prds);
            this.set(port::CI, 1);
            this.note(done);
            this.note_and_recover(done);
        };
        send(self, &RegisterH2d::command(command::IDENTIFY_PACKET_DEVICE), &[], 512);
        send(self, &set_features(feature::TRANSFER_MODE, 0x42), &[], 0);
        send(self, &set_features(feature::DISABLE_REVERT, 0), &[], 0);
        // The attention, and sense data that is kept for the command that asks for it.
        for _ in 0..2 {
            send(self, &by_dma(), &[opcode::TEST_UNIT_READY], 0);
        }
        send(self, &by_dma(), &[opcode::REQUEST_SENSE, 0, 0, 0, 18], 18);
        send(self, &by_dma(), &read_10(5, 2), 4096);
        send(self, &by_pio(2048), &read_10(9, 2), 4096);
        send(self, &by_dma(), &read_10(u32::MAX, 1), 2048);
        send(self, &by_dma(), &[opcode::REQUEST_SENSE, 0, 0, 0, 18], 18);
        send(self, &by_dma(), &[opcode::PREVENT_ALLOW_MEDIUM_REMOVAL, 0, 0, 0, 1], 0);
        send(self, &by_dma(), &[opcode::START_STOP_UNIT, 0, 0, 0, 2], 0);
        send(self, &by_dma(), &[opcode::PREVENT_ALLOW_MEDIUM_REMOVAL, 0, 0, 0, 0], 0);
        send(self, &by_dma(), &[opcode::START_STOP_UNIT, 0, 0, 0, 2], 0);
        send(self, &by_dma(), &read_10(5, 2), 4096);
        send(self, &by_dma(), &[opcode::START_STOP_UNIT, 0, 0, 0, 3], 0);
        send(self, &by_dma(), &[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], 8);
        send(self, &by_dma(), &read_10(5, 2), 4096);
        send(self, &by_dma(), &read_10(6, 2), 4096);
        send(self, &RegisterH2d::command(command::SLEEP), &[], 0);
        send(self, &by_dma(), &read_10(6, 2), 4096);
        send(self, &RegisterH2d::command(command::DEVICE_RESET), &[], 0);
        send(self, &by_dma(), &read_10(7, 2), 4096);
        results
    }
}

/// Sectors of the disk that a driver has at work.
const SMALL_SECTORS: u64 = 256;

/// Its image: each sector starts with its number.
fn small() -> MemoryBackend {
    let numbers = (0..SMALL_SECTORS).flat_map(|sector| {
        let mut data = [0x5a; 512];
        data[..8].copy_from_slice(&sector.to_le_bytes());
        data
    });
    let contents: Vec<u8> = numbers.collect();
    let options = MemoryOptions { volatile_cache: true, ..MemoryOptions::default() };
    MemoryBackend::from_contents(&contents, options).unwrap()
}

/// How a driver has a machine at work that is built like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// A disk, with MSI.
    Disk,
    /// A disk, with INTx.
    DiskIntx,
    Drive,
}

impl Course {
    fn build(self) -> (Build, Log) {
        match self {
            Self::Disk | Self::DiskIntx => {
                let image = Arc::new(RecordingBackend::new(small()));
                let log = image.log();
                (Arc::new(move || Options::new([DiskOptions::new(image.clone())])), log)
            }
            Self::Drive => {
                let image = Arc::new(RecordingBackend::new(disc(0)));
                let log = image.log();
                (Arc::new(move || options(drive(Some(image.clone())))), log)
            }
        }
    }

    /// A machine that was just switched on.
    fn machine(self, build: &Build) -> Machine {
        let mut machine = Machine::of(build());
        enable(&mut machine.ahci);
        if self != Self::DiskIntx {
            enable_msi(&mut machine.ahci);
        }
        machine
    }

    fn drive(self, machine: &mut Machine) -> Vec<u32> {
        match self {
            Self::Disk | Self::DiskIntx => machine.drive_disk(),
            Self::Drive => machine.drive_drive(),
        }
    }

    /// All of it, with something that happens before one of the accesses: how many there are, and what
    /// is seen.
    fn run(self, before: usize, event: impl FnOnce(Build) -> Event) -> (usize, Seen) {
        let (build, log) = self.build();
        let mut machine = self.machine(&build);
        machine.before = Some((before, event(build)));
        let results = self.drive(&mut machine);
        let memory = [(LIST, 0x2000), (DATA, 0x3_2000)];
        let seen = Seen {
            results,
            memory: memory.into_iter().flat_map(|(at, len)| machine.bytes(at, len)).collect(),
            operations: log.events(),
            messages: machine.interrupts.messages(),
            level: machine.interrupts.level(),
            state: serde_json::to_string(&machine.snapshot()).unwrap(),
        };
        (machine.accesses, seen)
    }
}

/// At every register access: what comes after a move is what comes after a pause.
#[test]
fn an_hba_moves_before_any_access_and_nobody_notices() {
    for course in [Course::Disk, Course::DiskIntx, Course::Drive] {
        let (count, _) = course.run(usize::MAX, |_| Event::Pause);
        assert!(count >= 300, "{count}");
        let stride = if course == Course::Disk { 1 } else { 8 };
        for before in (0..count).step_by(stride) {
            let (_, paused) = course.run(before, |_| Event::Pause);
            let (accesses, moved) = course.run(before, Event::Move);
            let context = format!("{course:?}, before access {before}");
            assert_eq!(accesses, count, "{context}");
            assert_eq!(moved.results, paused.results, "{context}");
            assert!(moved.operations == paused.operations, "{context}");
            assert_eq!(moved.messages, paused.messages, "{context}");
            assert_eq!(moved.level, paused.level, "{context}");
            assert!(moved.memory == paused.memory, "{context}");
            assert_eq!(moved.state, paused.state, "{context}");
        }
    }
}

/// A machine with commands that have ended at the backend, and could not be reported: bus mastering is off.
fn untold(commands: &[(u32, RegisterH2d)]) -> (Machine, Build, Log) {
    let image = Arc::new(RecordingBackend::new(numbered()));
    let log = image.log();
    let gated = GatedBackend::new(image.clone());
    let gate = gated.gate();
    let mut machine = Machine::with_msi(gated);
    for (slot, fis) in commands {
        machine.prepare(*slot, fis, &[Prd::new(data_at(*slot), 512)], 0);
    }
    let slots = commands.iter().fold(0, |slots, (slot, _)| slots | 1 << slot);
    if commands.len() > 1 {
        machine.set(port::SACT, slots);
    }
    machine.set(port::CI, slots);
    machine.run();
    assert_eq!(gate.held(), commands.len());
    write_config(&mut machine.ahci, pci::header::COMMAND, pci::Command::MEMORY.bits());
    gate.open();
    machine.run();
    (machine, Arc::new(move || Options::new([DiskOptions::new(image.clone())])), log)
}

fn untold_writes() -> [(u32, RegisterH2d); 2] {
    [1, 3].map(|tag| (tag, queued(command::WRITE_FPDMA_QUEUED, tag, 100 + u64::from(tag), 1)))
}

/// They go along, and are told by the other HBA, which does nothing of it again.
#[test]
fn what_could_not_be_told_is_carried() {
    let read = sectors(command::READ_DMA_EXT, 9, 1);
    for commands in [untold_writes().to_vec(), vec![(2, read)]] {
        let (mut machine, build, log) = untold(&commands);
        let messages = machine.interrupts.messages();
        let operations = log.events();
        let saved = serde_json::to_value(machine.snapshot()).unwrap();
        let kept = saved["state"]["ports"][0]["commands"].as_array().unwrap().len();
        assert_eq!(kept, commands.len());
        machine.move_to(build());
        machine.run();
        assert_eq!(machine.interrupts.messages(), messages);
        enable(&mut machine.ahci);
        machine.run();
        assert_eq!((machine.get(port::CI), machine.get(port::SACT)), (0, 0));
        assert_eq!(machine.get(port::TFD), 0x50);
        assert_eq!(machine.interrupts.messages(), messages + 1);
        assert!(log.events() == operations, "nothing is done twice");
        assert_eq!(machine.ahci.taken(0), 0);
        machine.acknowledge();
        machine.identify();
    }
}

/// A driver that has stopped waiting hears nothing of it, of the other HBA neither.
#[test]
fn what_was_overtaken_is_carried_too() {
    let (mut machine, build, _) = untold(&[(2, sectors(command::READ_DMA_EXT, 9, 1))]);
    machine.ahci.pause().unwrap();
    machine.command_off(PortCommand::ST);
    assert!(machine.has(PortCommand::CR), "it has not come back");
    let text = machine.saved();
    assert!(text.contains("\"draining\":true"));
    machine.go_on_with(build(), &text);
    let messages = machine.interrupts.messages();
    machine.run();
    assert!(!machine.has(PortCommand::CR));
    enable(&mut machine.ahci);
    machine.run();
    assert_eq!(machine.interrupts.messages(), messages);
    machine.command_on(PortCommand::ST);
    machine.identify();
}

/// A driver that has asked for a reset of the HBA waits for its end, wherever that comes.
#[test]
fn a_reset_under_way_is_carried() {
    let (build, _) = Course::Disk.build();
    let mut machine = Course::Disk.machine(&build);
    machine.start();
    machine.ahci.pause().unwrap();
    machine.write(host::GHC, Ghc::HR.bits());
    let text = machine.saved();
    machine.go_on_with(build(), &text);
    assert_eq!(machine.read(host::GHC), (Ghc::AE | Ghc::HR).bits());
    machine.run();
    assert_eq!(machine.read(host::GHC), Ghc::AE.bits());
    machine.start();
    machine.identify();
}

/// A host that has put a larger image there says so when it likes; until then the guest sees what it knows.
#[test]
fn a_larger_image_is_told_by_resize() {
    let (build, _) = Course::Disk.build();
    let mut machine = Course::Disk.machine(&build);
    machine.start();
    let options = MemoryOptions { volatile_cache: true, ..MemoryOptions::default() };
    let image = MemoryBackend::new((SMALL_SECTORS + 8) * 512, options).unwrap();
    machine.move_to(Options::new([disk(image)]));
    let sectors = |words: &[u16]| u32::from(words[60]) | u32::from(words[61]) << 16;
    assert_eq!(u64::from(sectors(&machine.identify())), SMALL_SECTORS);
    assert_eq!(machine.ahci.control().resize(0), Some((SMALL_SECTORS + 8) * 512));
    machine.run();
    machine.command_off(PortCommand::ST);
    machine.start();
    assert_eq!(u64::from(sectors(&machine.identify())), SMALL_SECTORS + 8);
}

#[test]
fn an_hba_is_saved_and_restored_only_while_paused() {
    let (build, _) = Course::Disk.build();
    let mut machine = Course::Disk.machine(&build);
    machine.start();
    assert!(matches!(machine.ahci.save(), Err(StateError::NotPaused)));
    let state = machine.snapshot();
    assert!(matches!(machine.ahci.restore(&state), Err(StateError::NotPaused)));
    assert_eq!(machine.snapshot(), state, "it was left alone");
}

/// CVE-2013-4526: the ports of a state are those that the HBA has.
#[test]
fn the_state_of_another_hba_is_refused() {
    let (build, _) = Course::Disk.build();
    let mut machine = Course::Disk.machine(&build);
    machine.drive_disk();
    let state = serde_json::to_value(machine.snapshot()).unwrap();
    let fresh = {
        machine.replace(build());
        machine.ahci.reset();
        machine.ahci.resume().unwrap();
        machine.run();
        machine.ahci.pause().unwrap();
        machine.saved()
    };
    let refused = |state: &serde_json::Value, options: Options| {
        let mut machine = Course::Disk.machine(&build);
        let (other, none) = (options.ports.len() != 6, options.ports[0].is_none());
        machine.replace(options);
        let state = serde_json::from_value(state.clone()).unwrap();
        let error = machine.ahci.restore(&state).unwrap_err();
        assert!(matches!(error, StateError::Impossible(_)), "{error}");
        if !other && !none {
            assert_eq!(machine.saved(), fresh);
        }
    };
    let mut more = state.clone();
    let ports = more["state"]["ports"].as_array_mut().unwrap();
    ports.push(ports[5].clone());
    refused(&more, build());
    let mut fewer = state.clone();
    fewer["state"]["ports"].as_array_mut().unwrap().pop();
    refused(&fewer, build());
    let mut many = build();
    many.ports.push(None);
    refused(&state, many);
    refused(&state, Options::new([]));
}
