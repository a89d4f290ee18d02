//! Everything that runs, seen from below: the test hosts' processes are this machine's.
//!
//! A thread looks at all of `/proc` again and again: command lines and environments (what a leak would be in),
//! the peak memory of agents by host, and whether processes of ours may leave core files. A process that lives for
//! less than a round (a few milliseconds) can be missed; peaks are the kernel's own and miss nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(3);
/// A program has set the limits it wants by then, where nothing else keeps the machine busy.
const SETTLED: Duration = Duration::from_millis(250);
/// And by then where something does.
const SETTLED_LATE: Duration = Duration::from_secs(3);

/// What was seen until the end.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Command lines and environments, each once; arguments are separated by zero bytes.
    pub texts: HashSet<String>,
    /// Most memory that an agent of a host ever had, in kB as the kernel counts it (`VmHWM`).
    pub agent_peak_kb: BTreeMap<String, u64>,
    /// Command lines of our programs that may write a core file, each with the process's number.
    pub may_dump: BTreeSet<String>,
    /// Rounds over all processes.
    pub rounds: usize,
}

impl Seen {
    /// Whether a program with this word in its command line was seen.
    pub fn saw(&self, word: &str) -> bool {
        self.texts.iter().any(|text| text.contains(word))
    }
}

/// A thread that watches.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    /// Watches the machine; processes below `/maxim-RUN-HOST` in their control group belong to that host.
    pub fn start(run: &Path) -> Self {
        let mark = mark_of(run);
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut seen, mut known) = (Seen::default(), BTreeMap::new());
            while !told.load(Ordering::Relaxed) {
                look(&mark, &mut known, &mut seen);
                seen.rounds += 1;
                std::thread::sleep(PAUSE);
            }
            seen
        });
        Self { stop, thread }
    }

    /// What it has seen.
    ///
    /// # Panics
    ///
    /// When its thread panicked.
    pub fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watching thread does not panic")
    }
}

/// The agents that work on a host of a run for a command (not those that only look for the console).
pub fn agents(run: &Path, host: &str) -> Vec<u32> {
    let mark = mark_of(run);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let read = |file: &str| {
            let content = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&content).into_owned()
        };
        let command = read("cmdline");
        let mut arguments = command.split('\0').skip(1);
        let works = arguments.next() == Some("agent") && arguments.next() != Some("--observe");
        if works && host_of(&read("cgroup"), &mark).as_deref() == Some(host) {
            found.extend(entry.file_name().to_string_lossy().parse::<u32>().ok());
        }
    }
    found
}

/// What the control groups of a run's hosts begin with.
fn mark_of(run: &Path) -> String {
    format!("/maxim-{}-", run.file_name().unwrap_or_default().to_string_lossy())
}

/// A process as it was last seen.
struct Known {
    command: String,
    /// The host of which it is an agent.
    agent_of: Option<String>,
    /// When it became this program; none: its limits were read for the last time, or need not be.
    to_settle: Option<Instant>,
}

/// One round. Of a process that has not become another program only an agent's peak is read again.
fn look(mark: &str, known: &mut BTreeMap<String, Known>, seen: &mut Seen) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| {
            let content = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&content).into_owned()
        };
        let command = read("cmdline");
        if command.is_empty() {
            continue;
        }
        if known.get(&number).is_none_or(|before| before.command != command) {
            let mut arguments = command.split('\0');
            let program = arguments.next().unwrap_or_default();
            let agent = arguments.next() == Some("agent") && !program.ends_with("ssh");
            let ours = agent || program.contains("maxim") && !program.contains("maxim-hosts");
            let agent_of = if agent { host_of(&read("cgroup"), mark) } else { None };
            seen.texts.extend([command.clone(), read("environ")]);
            let to_settle = ours.then(Instant::now);
            known.insert(number.clone(), Known { command, agent_of, to_settle });
        }
        let Some(process) = known.get_mut(&number) else { continue };
        if let Some(host) = &process.agent_of {
            let peak = seen.agent_peak_kb.entry(host.clone()).or_default();
            *peak = (*peak).max(peak_kb(&read("status")));
        }
        // Only what it does first of all sets its limits. One that ends before the last look counts as it was seen.
        if let Some(since) = process.to_settle.filter(|since| since.elapsed() >= SETTLED) {
            if since.elapsed() >= SETTLED_LATE {
                process.to_settle = None;
            }
            let (limits, shown) =
                (read("limits"), format!("{number} {}", process.command.replace('\0', " ")));
            if may_dump(&limits) {
                seen.may_dump.insert(shown);
            } else if !limits.is_empty() {
                seen.may_dump.remove(&shown);
            }
        }
    }
}

fn host_of(groups: &str, mark: &str) -> Option<String> {
    let (_, rest) = groups.split_once(mark)?;
    Some(rest.split(['/', '\n']).next()?.to_owned())
}

fn peak_kb(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default()
}

/// Whether the soft limit of core files is not zero. A process that is gone has none.
fn may_dump(limits: &str) -> bool {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    line.and_then(|line| line.split_whitespace().next()).is_some_and(|soft| soft != "0")
}

#[cfg(test)]
mod tests {
    use super::{host_of, may_dump, peak_kb};

    #[test]
    fn the_files_of_proc_are_read() {
        let groups = "12:memory:/x/maxim-mx3-db1\n0::/x/maxim-mx3-db1/system.slice/ssh.service\n";
        assert_eq!(host_of(groups, "/maxim-mx3-").as_deref(), Some("db1"));
        assert_eq!(host_of(groups, "/maxim-mx4-"), None);
        assert_eq!(peak_kb("VmPeak:\t  9 kB\nVmHWM:\t    7168 kB\n"), 7168);
        assert!(may_dump("Max core file size        unlimited            unlimited            bytes\n"));
        assert!(!may_dump("Max core file size        0                    unlimited            bytes\n"));
        assert!(!may_dump(""));
    }
}
