//! Drivers and devices in this process, without a virtual machine.

use std::sync::Arc;

use paraslot_device::executor::pin_to;
use paraslot_drivers::workload;
use paraslot_pci::Bdf;
use paraslot_protocol::{Job, Outcome};
use paraslot_vmm::in_process::{InProcess, Machine, Run};

use super::built::Built;
use super::{Bench, GUEST_MEMORY, Sample, Setting, outcome};
use crate::drag;
use crate::plan::Cell;

/// Runs each job on a machine of its own, with the driver on the virtual processor's processor.
pub(crate) struct InProcessBench<'a> {
    /// How.
    pub(crate) setting: Setting<'a>,
}

impl Bench for InProcessBench<'_> {
    fn run(&mut self, cell: &Cell, job: &Job) -> anyhow::Result<Sample> {
        const FUNCTION: Bdf = Bdf::root(1);
        // Doorbells, reads and interrupts as on the path with the fewest exits.
        let machine = Machine {
            doorbell_events: true,
            read_windows: true,
            interrupt_events: true,
            ..Machine::new(usize::try_from(GUEST_MEMORY)?, Run::Threads(self.setting.threads()))
        };
        let machine = InProcess::new(&machine)?;
        let mut host = machine.host(FUNCTION);
        host.executor = drag::on(host.executor, self.setting.drag);
        let Built { function, watch, label } = self.setting.build(cell, host)?;
        machine.plug(FUNCTION, function)?;
        let cpu = self.setting.vcpu_cpu();
        let machine = Arc::new(machine);
        let driver = std::thread::Builder::new().name("driver".into()).spawn({
            let (machine, job) = (machine.clone(), *job);
            move || {
                if let Some(cpu) = cpu {
                    pin_to(cpu)?;
                }
                let mut outcome = Box::new(Outcome::default());
                let result = workload::run_into(&*machine, job, &mut outcome);
                Ok::<_, std::io::Error>((outcome, result))
            }
        })?;
        let done = driver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (outcome, result) = done?;
        let sample = outcome::from_outcome(&outcome);
        let mut sample = match result {
            Ok(()) => sample?,
            Err(failure) => {
                return Err(match sample {
                    Err(error) => anyhow::anyhow!("{error}: {failure}"),
                    Ok(_) => failure.into(),
                });
            }
        };
        watch.confirm(&sample)?;
        sample.backend = label;
        sample.network = watch.look().network;
        Ok(sample)
    }
}
