//! The real binary, run as a user would run it, in a home of its own.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::poll;

/// A user's home: empty at first, kept over several runs, removed at the end.
pub struct Home {
    folder: TempDir,
}

impl Home {
    pub fn new() -> Arc<Self> {
        let folder = TempDir::with_prefix("adit-home-").expect("a temporary folder");
        Arc::new(Self { folder })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the default configuration file goes.
    pub fn write_config(&self, toml: &str) -> PathBuf {
        let folder = self.path().join("config");
        fs::create_dir_all(&folder).expect("a folder for the configuration");
        let file = folder.join("adit.toml");
        fs::write(&file, toml).expect("the configuration is written");
        file
    }
}

/// A run of adit, not yet started.
pub struct Adit {
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    home: Arc<Home>,
    terminal: bool,
    privileges: bool,
}

impl Adit {
    pub fn new<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            variables: Vec::new(),
            home: Home::new(),
            terminal: false,
            privileges: true,
        }
    }

    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Run in a home that other runs have used, or will.
    pub fn home(mut self, home: &Arc<Home>) -> Self {
        self.home = Arc::clone(home);
        self
    }

    /// Run on a terminal, which takes stdout and stderr together. The arguments must be plain words.
    pub fn on_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Run without what root may do besides its own: a file's permissions hold for it too.
    pub fn without_privileges(mut self) -> Self {
        self.privileges = false;
        self
    }

    /// Starts it and watches what it says.
    pub fn start(mut self) -> Running {
        let home = self.home.path();
        let mut program = OsString::from(env!("CARGO_BIN_EXE_adit"));
        if self.terminal {
            // util-linux's `script`, which every Debian has, makes the terminal.
            let mut line = OsString::from("exec '");
            line.push(&program);
            line.push("'");
            for argument in self.arguments.drain(..) {
                line.push(" ");
                line.push(argument);
            }
            program = "script".into();
            self.arguments = ["-qec".into(), line, "/dev/null".into()].into();
        }
        if !self.privileges {
            // util-linux's too. Where the user is not root, there are none to give up.
            let options = ["--bounding-set=-all", "--inh-caps=-all"].map(OsString::from);
            let is_root = fs::metadata("/proc/self").is_ok_and(|of| of.uid() == 0);
            if is_root {
                self.arguments.splice(0..0, options.into_iter().chain([program]));
                program = "setpriv".into();
            }
        }
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let known = name.to_string_lossy();
            // All tests may be run as on a lesser processor.
            let is_kept = known == "ADIT_DISABLE_CPU_FEATURES";
            if (known.starts_with("ADIT_") && !is_kept) || known.starts_with("XDG_") {
                command.env_remove(&name);
            }
        }
        command
            .args(&self.arguments)
            .current_dir(home)
            .env_remove("NO_COLOR")
            .env_remove("RUST_LOG")
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_STATE_HOME", home.join("state"))
            .env("XDG_CACHE_HOME", home.join("cache"))
            .envs(self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().expect("adit starts");
        let lines = Arc::new(Lines::default());
        let readers = [
            read(child.stdout.take().expect("a pipe"), Stream::Stdout, Arc::clone(&lines)),
            read(child.stderr.take().expect("a pipe"), Stream::Stderr, Arc::clone(&lines)),
        ];
        Running { child, lines, readers: readers.into(), home: self.home, started }
    }

    /// Runs it to its end.
    pub fn run(self, timeout: Duration) -> Exit {
        self.start().wait(timeout)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A line of output, and when it came.
#[derive(Debug, Clone)]
pub struct Line {
    pub stream: Stream,
    pub at: Instant,
    pub text: String,
}

#[derive(Default)]
struct Lines {
    said: Mutex<Vec<Line>>,
    more: Condvar,
}

fn read(pipe: impl Read + Send + 'static, stream: Stream, lines: Arc<Lines>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(1..)) {
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            bytes.clear();
            let mut said = lines.said.lock().expect("no reader panics");
            said.push(Line { stream, at: Instant::now(), text });
            lines.more.notify_all();
        }
        lines.more.notify_all();
    })
}

/// What a failed test shows of a run: on regtest there are thousands of lines a second.
fn last_of(lines: &[Line]) -> String {
    let (last, shown) = (lines.len(), 60);
    let texts: Vec<&str> =
        lines[last.saturating_sub(shown)..].iter().map(|line| line.text.as_str()).collect();
    format!("({last} lines)\n{}", texts.join("\n"))
}

/// A run of adit under way. It is killed when dropped.
pub struct Running {
    child: Child,
    lines: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
    home: Arc<Home>,
    pub started: Instant,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.said.lock().expect("no reader panics").clone()
    }

    fn text(&self, stream: Stream) -> String {
        let said = self.lines.said.lock().expect("no reader panics");
        let lines = said.iter().filter(|line| line.stream == stream);
        lines.flat_map(|line| [line.text.as_str(), "\n"]).collect()
    }

    /// The first line of either stream, said already or still to come, for which `wanted` holds.
    pub fn wait_for_line(&self, wanted: impl Fn(&str) -> bool, timeout: Duration) -> Line {
        self.wait_for(timeout, |line| wanted(&line.text).then(|| line.clone()))
    }

    /// The same for the events of `--json`.
    pub fn wait_for_event(&self, wanted: impl Fn(&Value) -> bool, timeout: Duration) -> Value {
        self.wait_for(timeout, |line| {
            if line.stream == Stream::Stdout {
                Some(parse(&line.text)).filter(&wanted)
            } else {
                None
            }
        })
    }

    fn wait_for<T>(&self, timeout: Duration, mut find: impl FnMut(&Line) -> Option<T>) -> T {
        let deadline = Instant::now() + timeout;
        let mut seen = 0;
        let mut said = self.lines.said.lock().expect("no reader panics");
        loop {
            if let Some(found) = said[seen..].iter().find_map(&mut find) {
                return found;
            }
            seen = said.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = self.readers.iter().all(JoinHandle::is_finished);
            if left.is_zero() || ended {
                let why = if ended { "adit has ended" } else { "time is over" };
                panic!("{why}, and the line has not come; it said:\n{}", last_of(&said));
            }
            // Readers that end between the two looks must not hold us for long.
            let pause = left.min(Duration::from_millis(50));
            said = self.lines.more.wait_timeout(said, pause).expect("no reader panics").0;
        }
    }

    /// The events of `--json` so far.
    pub fn events(&self) -> Vec<Value> {
        events(&self.text(Stream::Stdout))
    }

    /// Sends `INT`, `TERM`, `KILL`, `STOP`, ...
    pub fn signal(&mut self, name: &str) {
        // The child is not waited for yet, so that its number is still its own.
        if matches!(self.child.try_wait(), Ok(None)) {
            let sent = Command::new("sh")
                .args(["-c", "kill -s \"$0\" \"$1\"", name, &self.child.id().to_string()])
                .status();
            assert!(sent.is_ok_and(|status| status.success()), "the signal was not sent");
        }
    }

    /// A figure of the kernel about the process, in KiB: `VmRSS`, `VmHWM`, ...
    pub fn memory(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the kernel tells about the process");
        status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("the kernel tells no {key}"))
    }

    /// The CPU time that the process has used so far, all its threads together: to 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .expect("the kernel tells about the process");
        // Fields 14 and 15, counted after the name, which may hold anything: ticks of 1/100 s.
        let fields = stat.rsplit_once(')').expect("the name stands in brackets").1;
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("a number of ticks"))
            .sum();
        Duration::from_millis(ticks * 10)
    }

    /// Waits for its end; one that does not come in time is a failure.
    pub fn wait(mut self, timeout: Duration) -> Exit {
        let status = poll(timeout, || self.child.try_wait().expect("the child can be asked"));
        let Some(status) = status else {
            let _ = self.child.kill();
            panic!("adit did not end in {timeout:?}; it said:\n{}", last_of(&self.lines()));
        };
        let elapsed = self.started.elapsed();
        for reader in self.readers.drain(..) {
            reader.join().expect("no reader panics");
        }
        Exit {
            code: status.code(),
            stdout: self.text(Stream::Stdout),
            stderr: self.text(Stream::Stderr),
            elapsed,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Exit {
    /// `None`: ended by a signal it did not catch.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Exit {
    pub fn events(&self) -> Vec<Value> {
        events(&self.stdout)
    }

    /// The event of this name, which must be there once.
    pub fn event(&self, name: &str) -> Value {
        let mut found: Vec<Value> = self.events();
        found.retain(|event| event["event"] == name);
        assert_eq!(found.len(), 1, "events of the name {name}: {self:#?}");
        found.remove(0)
    }

    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code; {self:#?}");
        self
    }
}

fn events(stdout: &str) -> Vec<Value> {
    stdout.lines().map(parse).collect()
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?} is no JSON: {error}"))
}
