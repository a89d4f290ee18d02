//! Leaving a processor to whoever serves.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// While it lives, this thread, and what it starts, leaves one processor to whoever serves on this host, if there are two:
/// the one that answers the most interrupts of devices, for that is where those wake who wait for a disk or the network.
///
/// Niceness alone does not do it: a program that computes keeps its processor for a slice of its own once it has it
/// (EEVDF; 4 ms with 250 ticks a second), however little it weighs, and whoever waits for a commit wakes behind it.
pub struct Aside(Option<CpuSet>);

impl Aside {
    /// From here on.
    pub fn step() -> Self {
        let this = Pid::from_raw(0);
        let Ok(all) = sched_getaffinity(this) else { return Self(None) };
        let interrupts = std::fs::read_to_string("/proc/interrupts").unwrap_or_default();
        let Some(left) = busiest(&interrupts, |processor| all.is_set(processor).unwrap_or(false)) else {
            return Self(None);
        };
        let mut others = all;
        let stepped = others.unset(left).and_then(|()| sched_setaffinity(this, &others)).is_ok();
        Self(stepped.then_some(all))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(all) = &self.0 {
            // It could be set before; at worst this thread goes on with one processor less.
            let _ = sched_setaffinity(Pid::from_raw(0), all);
        }
    }
}

/// Of the allowed processors, when there are two or more, the one that answered most interrupts of devices (the numbered
/// lines of proc(5), `/proc/interrupts`).
fn busiest(interrupts: &str, allowed: impl Fn(usize) -> bool) -> Option<usize> {
    let mut lines = interrupts.lines();
    let processors: Vec<usize> =
        lines.next()?.split_whitespace().filter_map(|name| name.strip_prefix("CPU")?.parse().ok()).collect();
    let mut counts = vec![0_u64; processors.len()];
    for line in lines {
        let mut words = line.split_whitespace();
        if words.next().is_some_and(|name| name.trim_end_matches(':').parse::<u32>().is_ok()) {
            for (count, word) in counts.iter_mut().zip(words) {
                *count += word.parse::<u64>().unwrap_or(0);
            }
        }
    }
    let ours: Vec<(usize, u64)> =
        processors.into_iter().zip(counts).filter(|(processor, _)| allowed(*processor)).collect();
    let (processor, _) = ours.iter().max_by_key(|(_, count)| *count)?;
    (ours.len() >= 2).then_some(*processor)
}

#[cfg(test)]
mod tests {
    use super::{Aside, busiest};
    use nix::sched::sched_getaffinity;
    use nix::unistd::Pid;

    const INTERRUPTS: &str = "           CPU0       CPU1       CPU3\n  1:   9   0   7   IO-APIC  1-edge  i8042\n\
                              36:   0   80   4   PCI-MSIX-0000:00:02.0  virtio1-req.0\nLOC: 900 1 1000  Local timer\n";

    #[test]
    fn the_processor_that_answers_devices_is_left() {
        assert_eq!(busiest(INTERRUPTS, |_| true), Some(1));
        assert_eq!(busiest(INTERRUPTS, |processor| processor != 1), Some(3));
        assert_eq!(busiest(INTERRUPTS, |processor| processor == 1), None, "there must be another one");
        assert_eq!(busiest("", |_| true), None);
    }

    #[test]
    fn stepping_aside_ends() {
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        drop(Aside::step());
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), all);
    }
}
