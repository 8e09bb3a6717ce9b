//! Admin commands (5), one at a time.

use paraslot_spec::nvme::{
    IDENTIFY_LEN, SubmissionEntry, admin, cns, feature, queue, status, version,
};
use zerocopy::little_endian::{U32, U64};

use super::identity::{Identity, Namespace};
use super::queue::{Completed, Pair};
use super::{MAX_QUEUES, Nvme, PAGE};
use crate::error::wait_until;
use crate::{DmaRegion, Error, Platform};

/// How long a command may take, in milliseconds. Linux waits a minute.
const COMMAND_MS: u64 = 10_000;

fn command(opcode: u8, dwords: [u32; 2]) -> SubmissionEntry {
    let mut entry = SubmissionEntry::new(opcode);
    let [tenth, eleventh] = dwords;
    (entry.dwords[0], entry.dwords[1]) = (U32::new(tenth), U32::new(eleventh));
    entry
}

impl<P: Platform> Nvme<'_, P> {
    /// Runs a command and waits for it; what came of it, whatever that is.
    fn run(&mut self, mut entry: SubmissionEntry) -> Result<Completed, Error> {
        let id = self.next_id;
        // All ones mean no command in the error log (4.2).
        self.next_id = (id + 1) % u16::MAX;
        entry.command_id = id.into();
        self.admin.push(&entry);
        self.admin.submit(&self.controller);
        let mut found = Ok(None);
        wait_until(self.controller.platform, COMMAND_MS, "admin command", || {
            found = self.admin.next();
            !matches!(found, Ok(None))
        })?;
        self.admin.release(&self.controller);
        match found? {
            Some(completed) if completed.id == id => Ok(completed),
            _ => Err(Error::Protocol("a completion of no command")),
        }
    }

    /// Runs a command that must succeed; its result.
    fn succeed(&mut self, entry: SubmissionEntry, what: &'static str) -> Result<u32, Error> {
        match self.run(entry)? {
            Completed { status: status::SUCCESS, result, .. } => Ok(result),
            _ => Err(Error::Protocol(what)),
        }
    }

    fn identify_command(data: &DmaRegion, what: u32, namespace: u32) -> SubmissionEntry {
        let mut entry = command(admin::IDENTIFY, [what, 0]);
        entry.namespace = U32::new(namespace);
        entry.prp1 = U64::new(data.physical(0));
        entry
    }

    /// Asks the controller and its first active namespace what they are like.
    pub(super) fn identify(&mut self) -> Result<(), Error> {
        // The first tag's page is free until there are requests.
        let data = self.page(0);
        let what = "it does not identify itself";
        self.succeed(Self::identify_command(&data, cns::CONTROLLER, 0), what)?;
        self.identity = Identity::parse(&data, self.controller.cap)?;
        let per_queue = self.options.depth.div_ceil(self.options.queues);
        if self.identity.max_commands != 0 && self.identity.max_commands < per_queue {
            return Err(Error::Unsupported("so many requests in flight"));
        }
        let id = match self.controller.version >= version(1, 1, 0) {
            true => {
                let list = Self::identify_command(&data, cns::ACTIVE_NAMESPACES, 0);
                self.succeed(list, "it does not list its namespaces")?;
                data.read32(0)
            }
            false => 1,
        };
        let id = self.identity.check_namespace(id)?;
        let what = "it does not identify its namespace";
        self.succeed(Self::identify_command(&data, cns::NAMESPACE, id), what)?;
        self.namespace = Namespace::parse(&data, id, &self.identity)?;
        Ok(())
    }

    /// Asks for as many pairs of queues as are wanted (5.21.1.7).
    pub(super) fn request_queues(&mut self) -> Result<(), Error> {
        let wanted = u32::from(self.options.queues) - 1;
        let dwords = [feature::NUMBER_OF_QUEUES, wanted << 16 | wanted];
        let what = "it gives no queues";
        let given = self.succeed(command(admin::SET_FEATURES, dwords), what)?;
        if (given & 0xffff).min(given >> 16) < wanted {
            return Err(Error::Unsupported("so many queues"));
        }
        Ok(())
    }

    /// Hands the pairs of queues to the controller, with or without interrupts.
    pub(super) fn create_pairs(&mut self, interrupts: bool) -> Result<(), Error> {
        for index in 0..MAX_QUEUES {
            let Some(Some(pair)) = self.pairs.get_mut(index) else { continue };
            pair.clear();
            let vector = self.controller.vector(pair.id());
            let [completions, submissions] = creation(pair, interrupts, vector);
            self.succeed(completions, "it refuses a completion queue")?;
            self.succeed(submissions, "it refuses a submission queue")?;
        }
        self.live = true;
        Ok(())
    }

    /// Takes them away. Nothing must be in flight.
    pub(super) fn delete_pairs(&mut self) -> Result<(), Error> {
        self.live = false;
        for id in 1..=self.options.queues {
            for opcode in [admin::DELETE_SUBMISSION_QUEUE, admin::DELETE_COMPLETION_QUEUE] {
                let entry = command(opcode, [id.into(), 0]);
                self.succeed(entry, "it does not give a queue back")?;
            }
        }
        Ok(())
    }
}

/// The commands that create a pair's queues (5.3, 5.4).
fn creation(pair: &Pair, interrupts: bool, vector: u16) -> [SubmissionEntry; 2] {
    let size = u32::from(pair.entries() - 1) << queue::SIZE_SHIFT;
    let place = size | u32::from(pair.id());
    let flags = if interrupts { queue::CONTIGUOUS | queue::INTERRUPTS } else { queue::CONTIGUOUS };
    let vector = u32::from(vector) << queue::SECOND_SHIFT;
    let mut completions = command(admin::CREATE_COMPLETION_QUEUE, [place, vector | flags]);
    completions.prp1 = U64::new(pair.completions());
    let its = u32::from(pair.id()) << queue::SECOND_SHIFT;
    let mut submissions = command(admin::CREATE_SUBMISSION_QUEUE, [place, its | queue::CONTIGUOUS]);
    submissions.prp1 = U64::new(pair.submissions());
    [completions, submissions]
}

const _: () = assert!(IDENTIFY_LEN <= PAGE);
