//! What the controller makes of commands: of admin commands (5) at once, of others (6) when it is told.

use super::*;

impl Fetched {
    fn start(&self) -> usize {
        assert_eq!(self.dwords[1], 0);
        usize::try_from(self.dwords[0]).unwrap()
    }

    fn blocks(&self) -> usize {
        usize::try_from(self.dwords[2] & 0xffff).unwrap() + 1
    }
}

impl Model {
    pub(super) fn administer(&self, fake: &Fake, command: &Fetched) {
        let (status, result) = match self.fault.get() {
            Fault::Silent => return,
            Fault::Refuses(opcode, why) if opcode == command.opcode => (why, 0),
            Fault::WrongId => {
                let wrong = Fetched { id: command.id ^ 0x100, ..*command };
                return self.complete(fake, &wrong, 0, 0);
            }
            Fault::WrongQueue => {
                let posted = Posted { queue: 1, id: command.id, ..Posted::default() };
                return self.post(fake, 0, posted);
            }
            _ => self.carry_out(fake, command),
        };
        self.complete(fake, command, status, result);
    }

    fn carry_out(&self, fake: &Fake, command: &Fetched) -> (u16, u32) {
        let [tenth, eleventh, ..] = command.dwords;
        let id = u16::try_from(tenth & 0xffff).unwrap();
        let second = u16::try_from(eleventh >> 16).unwrap();
        let limit = self.cap.get() & 0xffff;
        match command.opcode {
            1 | 5 => {
                let size = tenth >> 16;
                assert!(size >= 1 && u64::from(size) <= limit && eleventh & 1 == 1);
                assert_ne!(id, 0, "there is one already");
                let size = u16::try_from(size + 1).unwrap();
                if command.opcode == 5 {
                    let interrupts = eleventh & 2 != 0;
                    self.add_completion_queue(id, command.prp[0], size, interrupts, second);
                } else {
                    self.add_submission_queue(id, command.prp[0], size, second);
                }
            }
            0 => drop(self.submissions.borrow_mut().remove(&id).expect("a submission queue")),
            4 => {
                assert!(!self.submissions.borrow().contains_key(&id), "submissions first");
                self.completions.borrow_mut().remove(&id).expect("a completion queue");
            }
            6 => self.identify(fake, command),
            9 => {
                assert_eq!(tenth, 7);
                let given = self.queues.get();
                return (
                    0,
                    (given >> 16).min(eleventh >> 16) << 16
                        | (given & 0xffff).min(eleventh & 0xffff),
                );
            }
            _ => return (1, 0),
        }
        (0, 0)
    }

    fn identify(&self, fake: &Fake, command: &Fetched) {
        let mut page = [0; 4096];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        let which = match command.dwords[0] {
            0 => {
                assert_eq!(command.namespace, self.namespace.get());
                let blocks = self.contents.borrow().len() >> self.block_shift.get();
                for at in [0, 8, 16] {
                    put(at, &u64::try_from(blocks).unwrap().to_le_bytes());
                }
                // The second of two formats.
                put(25, &[1, 1]);
                put(128, &[8, 0, 12, 0, 0, 0, self.block_shift.get(), 0]);
                1
            }
            1 => {
                put(24, b"A model");
                // Up to 512 KiB at once.
                put(77, &[7]);
                put(512, &[0x66, 0x44]);
                put(516, &256u32.to_le_bytes());
                put(520, &0b1100u16.to_le_bytes());
                put(525, &[1]);
                0
            }
            2 => {
                assert!(self.version.get() >= 0x1_0100, "what it does not know");
                put(0, &self.namespace.get().to_le_bytes());
                2
            }
            other => panic!("what is {other}?"),
        };
        for (at, bytes) in &self.patches.borrow()[which] {
            page[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        let (memory, at) = fake.at(command.prp[0]);
        memory.write_bytes(at, &page);
    }

    /// The pieces of a command's data, as its PRPs say (4.3).
    fn pieces(&self, fake: &Fake, command: &Fetched, len: usize) -> Vec<(DmaRegion, usize, usize)> {
        let [first, second] = command.prp;
        assert_eq!(first % 4, 0);
        let in_page = usize::try_from(PAGE - first % PAGE).unwrap();
        let mut pieces = vec![(first, len.min(in_page))];
        let mut left = len - len.min(in_page);
        if left <= 4096 {
            if left != 0 {
                assert_eq!(second % PAGE, 0);
                pieces.push((second, left));
            } else {
                assert_eq!(second, 0);
            }
        } else {
            assert_eq!(second % PAGE, 0, "the list has its page to itself");
            let (list, at) = fake.at(second);
            let mut entry = 0;
            while left != 0 {
                let piece = left.min(4096);
                let address = list.read64(at + 8 * entry);
                assert_eq!(address % PAGE, 0);
                pieces.push((address, piece));
                (left, entry) = (left - piece, entry + 1);
            }
        }
        let place = |(address, len)| {
            let (memory, at) = fake.at(address);
            (memory, at, len)
        };
        pieces.into_iter().map(place).collect()
    }

    fn transfer(&self, fake: &Fake, command: &Fetched, write: bool) {
        let shift = self.block_shift.get();
        let (start, len) = (command.start() << shift, command.blocks() << shift);
        let mut contents = self.contents.borrow_mut();
        let mut data = &mut contents[start..start + len];
        for (memory, at, len) in self.pieces(fake, command, len) {
            let (piece, rest) = data.split_at_mut(len);
            if write {
                memory.read_bytes(at, piece);
            } else {
                memory.write_bytes(at, piece);
            }
            data = rest;
        }
    }

    /// Carries out the I/O commands that were fetched.
    pub(in crate::nvme::tests) fn serve(&self, fake: &Fake) {
        while let Some(command) = self.take() {
            self.serve_one(fake, &command);
        }
    }

    pub(in crate::nvme::tests) fn take(&self) -> Option<Fetched> {
        self.fetched.borrow_mut().pop_front()
    }

    pub(in crate::nvme::tests) fn serve_one(&self, fake: &Fake, command: &Fetched) {
        assert_eq!((command.namespace, command.flags), (self.namespace.get(), 0));
        assert!(self.has_room(command), "the driver leaves no room for completions");
        match command.opcode {
            0 => {}
            1 => self.transfer(fake, command, true),
            2 => self.transfer(fake, command, false),
            8 => {
                let shift = self.block_shift.get();
                let (start, len) = (command.start() << shift, command.blocks() << shift);
                self.contents.borrow_mut()[start..start + len].fill(0);
            }
            9 => {
                assert_eq!(command.dwords[1], 4);
                let shift = self.block_shift.get();
                let (memory, at) = fake.at(command.prp[0]);
                for range in 0..=usize::try_from(command.dwords[0]).unwrap() {
                    let at = at + 16 * range;
                    let len = usize::try_from(memory.read32(at + 4)).unwrap() << shift;
                    let start = usize::try_from(memory.read64(at + 8)).unwrap() << shift;
                    self.contents.borrow_mut()[start..start + len].fill(0xdd);
                }
            }
            other => panic!("a command {other:#x}"),
        }
        self.complete(fake, command, 0, 0);
    }
}
