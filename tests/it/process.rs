//! adit as a process: readers that stall, signals at any moment, limits of the system, exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::adit::{Adit, Home};
use crate::common::{poll, promised};

/// For what takes a second where nothing else runs. Shorter than the time after which a clean end is
/// not waited for any more: what ends within it has ended by itself.
const SOON: Duration = Duration::from_secs(70);
const ADIT: &str = env!("CARGO_BIN_EXE_adit");

/// adit whose stdout and stderr are pipes that nothing reads until the test does.
struct Unread {
    child: Child,
    _home: std::sync::Arc<Home>,
}

impl Unread {
    fn start(arguments: &[&str]) -> Self {
        let home = Home::new();
        let child = Command::new(ADIT)
            .args(arguments)
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("NODEVICE_SELECT", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("adit starts");
        Self { child, _home: home }
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the end and gives back the exit code, and all of stdout that was written.
    fn stdout(mut self) -> (Option<i32>, String) {
        let stderr = self.child.stderr.take();
        let (code, text) = self.end(|child| child.stdout.take().map(read_all));
        drop(stderr);
        (code, text)
    }

    /// The same of stderr.
    fn stderr(mut self) -> (Option<i32>, String) {
        let stdout = self.child.stdout.take();
        let (code, text) = self.end(|child| child.stderr.take().map(read_all));
        drop(stdout);
        (code, text)
    }

    fn end(
        &mut self,
        read: impl FnOnce(&mut Child) -> Option<std::thread::JoinHandle<String>>,
    ) -> (Option<i32>, String) {
        let reading = read(&mut self.child).expect("a pipe");
        let status = poll(SOON, || self.child.try_wait().unwrap());
        let status = status.expect("adit ends although nothing reads its output");
        (status.code(), reading.join().unwrap())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn signal(process: u32, name: &str) {
    let sent = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &process.to_string()])
        .status();
    assert!(sent.unwrap().success(), "the signal was not sent");
}

/// Waits until the process has a handler for the signal of this number.
fn wait_for_handler(process: u32, signal: u32) {
    let caught = poll(SOON, || {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim().to_owned();
        let mask = u64::from_str_radix(&mask, 16).ok()?;
        (mask >> (signal - 1) & 1 == 1).then_some(())
    });
    assert!(caught.is_some(), "no handler for signal {signal}");
}

/// Waits until the thread of this name, which writes to a pipe, does nothing while others hash: the
/// pipe is full.
fn wait_until_full(process: u32, thread: &str) {
    let switches = || {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
        let read = |task: &fs::DirEntry, file| fs::read_to_string(task.path().join(file)).ok();
        let task = tasks
            .flatten()
            .find(|task| read(task, "comm").is_some_and(|name| name.trim() == thread))?;
        let status = read(&task, "status")?;
        status.lines().find(|line| line.starts_with("voluntary_ctxt")).map(str::to_owned)
    };
    let hashed = || {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(11)?.parse().ok())
    };
    let full = poll(SOON, || {
        let before = (switches()?, hashed()?);
        std::thread::sleep(Duration::from_millis(500));
        let now: (String, u64) = (switches()?, hashed()?);
        (before.0 == now.0 && before.1 + 10 < now.1).then_some(())
    });
    assert!(full.is_some(), "the pipe does not become full");
}

/// Blocks that were announced so far.
fn blocks(run: &crate::common::adit::Running) -> usize {
    run.events().iter().filter(|event| event["event"] == "block").count()
}

/// Waits until a rate of zero is announced, and checks that no block is found in a pause.
fn expect_pause(run: &crate::common::adit::Running) {
    run.wait_for_line(|line| line.contains("paused (user)"), SOON);
    let still = poll(SOON, || {
        let before = blocks(run);
        std::thread::sleep(Duration::from_millis(300));
        (blocks(run) == before).then_some(before)
    });
    let still = still.expect("no block is found any more");
    let rates = |rate: &serde_json::Value| rate["event"] == "rate";
    let since = run.events().iter().filter(|event| rates(event)).count();
    let told = poll(SOON, || {
        let events = run.events();
        // The first of them may speak of the time before the pause, too.
        let rate = events.iter().filter(|event| rates(event)).nth(since + 1)?.clone();
        Some(rate["hashes_per_second"].as_f64())
    });
    assert_eq!(told, Some(Some(0.0)), "nothing is hashed");
    assert_eq!(blocks(run), still);
}

#[test]
fn a_signal_pauses_and_another_one_resumes() {
    let mut run = Adit::new(["mine", "--json", "--every", "20ms", "--backend", "cpu:sha2"]).start();
    run.wait_for_event(|event| event["event"] == "block", SOON);
    run.signal("USR1");
    run.signal("USR1");
    expect_pause(&run);
    let before = blocks(&run);
    run.signal("USR2");
    assert!(poll(SOON, || (blocks(&run) > before).then_some(())).is_some(), "it goes on");
    // Also in a pause it ends as usual.
    run.signal("USR1");
    run.signal("INT");
    let exit = run.wait(SOON).expect_code(130);
    promised::check(&exit.stdout);
    assert!(exit.stderr.contains("resumed"), "{}", exit.stderr);
}

#[test]
fn a_run_that_begins_paused_connects_and_waits() {
    let arguments = ["mine", "--json", "--paused", "--blocks", "3", "--backend", "cpu:sha2"];
    let mut run = Adit::new(arguments).start();
    run.wait_for_event(|event| event["event"] == "job", SOON);
    expect_pause(&run);
    assert_eq!(blocks(&run), 0);
    run.signal("USR2");
    let exit = run.wait(SOON).expect_code(0);
    let events = promised::check(&exit.stdout);
    assert_eq!(promised::blocks(&events).len(), 3);
}

#[test]
fn mining_goes_on_when_nothing_reads_stderr() {
    // Each block has a line there: the pipe is full after some hundred.
    let (code, stdout) = Unread::start(&["mine", "-v", "--blocks", "3000"]).stdout();
    assert_eq!(code, Some(0));
    assert!(stdout.contains(" 3,000 accepted, 0 rejected"), "{stdout}");
    let (code, stdout) = Unread::start(&["mine", "-v", "--for", "1s"]).stdout();
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("\nhash rate "), "{stdout}");

    let mut run = Unread::start(&["mine", "-v"]);
    let stdout = read_all(run.child.stdout.take().unwrap());
    wait_until_full(run.child.id(), "log");
    run.signal("TERM");
    let status = poll(SOON, || run.child.try_wait().unwrap());
    assert_eq!(status.expect("adit ends").code(), Some(143));
    let stdout = stdout.join().unwrap();
    assert!(stdout.lines().last().unwrap().starts_with("hardware errors"), "{stdout}");
}

#[test]
fn lines_of_the_log_that_were_dropped_are_counted() {
    let mut run = Unread::start(&["mine", "-v", "--json"]);
    // As many jobs, each with a line of the log, as fill all that may wait.
    let mut stdout = std::io::BufReader::new(run.child.stdout.take().unwrap());
    let mut jobs = 0;
    let mut line = String::new();
    while jobs < 20_000 {
        line.clear();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        jobs += u32::from(line.contains(r#""event":"job""#));
    }
    let stdout = read_all(stdout);
    run.signal("INT");
    let (code, stderr) = run.end(|child| child.stderr.take().map(read_all));
    assert_eq!(code, Some(130));
    let told: Vec<&str> =
        stderr.lines().filter(|line| line.contains("lines of the log were dropped")).collect();
    assert!(!told.is_empty(), "{} lines", stderr.lines().count());
    assert!(stdout.join().unwrap().lines().last().unwrap().contains(r#""event":"summary""#));
}

#[test]
fn mining_goes_on_when_nothing_reads_stdout_and_the_end_says_so() {
    let lost = "error: stdout: its reader took nothing";
    let expect_lost = |run: Unread| {
        let (code, stderr) = run.stderr();
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(lost) && stderr.contains("\nhint: "), "{stderr}");
    };
    std::thread::scope(|scope| {
        for format in [&["--json"][..], &[]] {
            for end in [["--blocks", "5000"], ["--for", "1s"]] {
                let arguments = [&["mine"], format, &end].concat();
                scope.spawn(move || expect_lost(Unread::start(&arguments)));
            }
        }
        scope.spawn(|| {
            let run = Unread::start(&["mine", "--json"]);
            wait_until_full(run.child.id(), "results");
            run.signal("TERM");
            expect_lost(run);
        });
    });
}

#[test]
fn neither_stream_read_is_no_reason_to_stay() {
    let run = |arguments: &[&str]| {
        let mut run = Unread::start(arguments);
        if !arguments.contains(&"--for") {
            wait_until_full(run.child.id(), "results");
            run.signal("TERM");
        }
        let status = poll(SOON, || run.child.try_wait().unwrap());
        assert_eq!(status.expect("adit ends").code(), Some(1), "{arguments:?}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(&["mine", "-v", "--json"]));
        scope.spawn(|| run(&["mine", "-v", "--json", "--for", "2s"]));
    });
}

#[test]
fn a_time_that_runs_out_first_is_told_by_its_exit_code() {
    let many = "1000000000";
    let run = Adit::new(["mine", "--json", "--for", "300ms", "--blocks", many]).run(SOON);
    let exit = run.expect_code(5);
    let accepted = exit.event("summary")["blocks"]["accepted"].as_u64().unwrap();
    let told = exit.stderr.lines().last().unwrap();
    let s = if accepted == 1 { "" } else { "s" };
    let line = format!("error: --blocks {many}: accepted when --for ran out: {accepted} block{s}");
    assert_eq!(told, line);

    let both = ["--blocks", "5", "--shares", "7", "--user", "u"];
    let run = Adit::new(["mine", "--for", "300ms", "stratum+tcp://127.0.0.1:1"]).args(both);
    let exit = run.run(SOON).expect_code(5);
    let line =
        "error: --blocks 5 and --shares 7: accepted when --for ran out: 0 blocks and 0 shares";
    assert_eq!(exit.stderr.lines().last(), Some(line));

    Adit::new(["mine", "--for", "300ms"]).run(SOON).expect_code(0);
    Adit::new(["mine", "--for", "1h", "--blocks", "3"]).run(SOON).expect_code(0);
}

#[test]
fn shares_are_refused_where_there_are_none() {
    for sources in [&["builtin"][..], &[], &["regtest"], &["regtest", "builtin"]] {
        let run = Adit::new(["mine", "--shares", "3"]).args(sources.iter().copied());
        let exit = run.run(SOON).expect_code(2);
        assert!(exit.stderr.starts_with("error: --shares: "), "{exit:#?}");
        assert!(exit.stderr.contains("\nhint: count blocks with --blocks"), "{exit:#?}");
        assert!(exit.stdout.is_empty(), "{exit:#?}");
    }
    // One that has some is enough.
    let mixed = ["builtin", "stratum+tcp://127.0.0.1:1", "--user", "u", "--shares", "3"];
    Adit::new(["mine", "--for", "300ms"]).args(mixed).run(SOON).expect_code(5);
}

#[test]
fn a_signal_right_at_the_start_is_a_clean_end() {
    let signals = [("HUP", 1, 129), ("INT", 2, 130), ("TERM", 15, 143)];
    for (name, number, code) in signals {
        for pause in [0, 3, 30, 100] {
            let mut run = Adit::new(["mine", "--json"]).start();
            wait_for_handler(run.pid(), number);
            std::thread::sleep(Duration::from_millis(pause));
            run.signal(name);
            let exit = run.wait(SOON).expect_code(code);
            promised::check_any(&exit.stdout);
            assert!(!exit.stderr.contains("error"), "{exit:#?}");
        }
        for command in ["check", "bench", "devices"] {
            let mut run = Adit::new([command, "--backend", "cpu"].into_iter().take(
                // It lists them all.
                if command == "devices" { 1 } else { 3 },
            ))
            .start();
            wait_for_handler(run.pid(), number);
            run.signal(name);
            let exit = run.wait(SOON);
            // What takes a few milliseconds may be done before the signal comes.
            if command == "devices" && exit.code == Some(0) {
                continue;
            }
            let exit = exit.expect_code(code);
            assert!(exit.stdout.is_empty() && !exit.stderr.contains("error"), "{exit:#?}");
        }
    }
}

#[test]
fn a_signal_ends_a_check_at_once() {
    for (name, code) in [("HUP", 129), ("INT", 130), ("TERM", 143)] {
        let mut run = Adit::new(["check", "--threads", "64", "--backend", "cpu"]).start();
        // Threads that hash: it is under way.
        let tasks = format!("/proc/{}/task", run.pid());
        let under_way =
            poll(SOON, || fs::read_dir(&tasks).is_ok_and(|all| all.count() > 8).then_some(()));
        assert!(under_way.is_some());
        run.signal(name);
        let exit = run.wait(SOON).expect_code(code);
        assert!(exit.stdout.is_empty() && exit.stderr.is_empty(), "{exit:#?}");
    }
}

#[test]
fn nohup_outlives_its_terminal() {
    let home = Home::new();
    let script = "trap '' HUP; exec \"$0\" mine --json --blocks 1 --every 1s";
    let child = Command::new("sh")
        .args(["-c", script, ADIT])
        .current_dir(home.path())
        .env("HOME", home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_handler(child.id(), 15);
    signal(child.id(), "HUP");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        promised::blocks(&promised::check(&String::from_utf8_lossy(&output.stdout))).len(),
        1
    );
}

/// Runs adit under a limit of the shell's, and gives back its exit code, stdout and stderr.
fn limited(limit: &str, arguments: &str) -> (Option<i32>, String, String) {
    let home = Home::new();
    let output = Command::new("sh")
        .args(["-c", &format!("{limit}; exec \"$0\" {arguments}"), ADIT])
        .current_dir(home.path())
        .env("HOME", home.path())
        .env("NODEVICE_SELECT", "1")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// One error, and a hint at most.
#[track_caller]
fn expect_one_error(stderr: &str) {
    let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert!(errors == 1 && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn few_open_files_are_told_in_one_line() {
    let mut succeeded = false;
    // Fewer are too few for the libraries that it is linked to.
    for files in [5, 6, 7, 8, 9, 10, 12, 14, 16, 24] {
        for command in ["mine --blocks 2", "check --backend cpu:sha2 --threads 1"] {
            let (code, _, stderr) = limited(&format!("ulimit -n {files}"), command);
            match code {
                Some(0) => succeeded = true,
                Some(1 | 2) => expect_one_error(&stderr),
                code => panic!("{files}: {code:?} {stderr}"),
            }
        }
        let (code, _, stderr) = limited(
            &format!("ulimit -n {files}"),
            "mine http://127.0.0.1:1 --rpc-user u \
                     --rpc-password p --for 300ms",
        );
        match code {
            Some(0) => {}
            Some(1 | 2) => expect_one_error(&stderr),
            code => panic!("{files}: {code:?} {stderr}"),
        }
    }
    assert!(succeeded);
}

#[test]
fn a_limit_on_files_sizes_is_told_in_one_line() {
    let (code, _, stderr) = limited("ulimit -f 0", "mine --blocks 3 >results");
    assert_eq!(code, Some(1), "{stderr}");
    expect_one_error(&stderr);
    assert!(stderr.contains("error: stdout: File too large"), "{stderr}");
    assert!(stderr.contains("\nhint: ") && stderr.contains("ulimit -f"), "{stderr}");

    let node =
        "mine http://127.0.0.1:1 --rpc-user u --rpc-password p --journal journal --for 300ms";
    let (code, _, stderr) = limited("ulimit -f 0", node);
    assert_eq!(code, Some(2), "{stderr}");
    expect_one_error(&stderr);
    assert!(stderr.contains("journal") && stderr.contains("File too large"), "{stderr}");

    let (code, stdout, stderr) = limited("ulimit -f 0", "mine --blocks 3 2>log");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(" 3 accepted"), "{stdout}");
}

/// Under a number of processes that is enough for some of its threads.
#[test]
fn no_more_processes_is_told_in_one_line() {
    // Root may have as many as it likes: it becomes another user, who has none yet. Others have some
    // already, so that the first thread is one too many.
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let folder = tempfile::TempDir::with_prefix("adit-process-").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = folder.path().join("adit");
    fs::copy(ADIT, &program).unwrap();
    let run = |processes: usize, arguments: &str| {
        let other = "setpriv --reuid=64017 --regid=64017 --clear-groups ";
        let become_other = if is_root { other } else { "" };
        let limit = format!("prlimit --nproc={processes}:{processes}");
        let line = format!("exec {become_other}{limit} \"$0\" {arguments}");
        let output = Command::new("sh")
            .args(["-c", &line])
            .arg(&program)
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("NODEVICE_SELECT", "1")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for command in [
        "mine --blocks 2 --threads 2",
        // A name is resolved by a thread of its own.
        "mine http://localhost:1 --rpc-user u --rpc-password p --for 200ms --threads 2",
        "check --backend cpu:sha2 --threads 2",
        "bench --backend cpu:sha2 --threads 2 --for 10ms",
        "grind --threads 2 0100000000000000000000000000000000000000000000000000000000000000000000003ba\
         3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff7f2000000000",
    ] {
        let enough = if is_root { 16 } else { 1 };
        let mut last = None;
        for processes in 1..=enough {
            let (code, stderr) = run(processes, command);
            last = code;
            match code {
                Some(0) => break,
                Some(1) => expect_one_error(&stderr),
                code => panic!("{command}, {processes}: {code:?} {stderr}"),
            }
        }
        assert_eq!(last, Some(i32::from(!is_root)), "{command}");
    }
}

/// The codes of a list whose lines begin with one.
fn codes<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(u8, &'a str)> {
    lines
        .filter_map(|line| {
            let (code, meaning) = line.trim().trim_start_matches("| ").split_once(' ')?;
            Some((
                code.parse().ok()?,
                meaning.trim_start_matches(['|', ' ']).trim_end_matches([' ', '|']),
            ))
        })
        .collect()
}

#[test]
fn help_manual_page_and_documents_have_the_same_exit_codes() {
    let section = |text: &str, from: &str| -> String {
        let after = text.split_once(from).unwrap_or_else(|| panic!("{from:?} in {text}")).1;
        after.split("\n\n").next().unwrap().to_owned()
    };
    let help = Adit::new(["--help"]).run(SOON).expect_code(0).stdout;
    let help = section(&help, "Exit codes:\n");
    let help = codes(help.lines());
    let numbers: Vec<u8> = help.iter().map(|(code, _)| *code).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 129, 130, 143]);

    let page = Adit::new(["man"]).run(SOON).expect_code(0).stdout.replace("\\-", "-");
    let page = section(&page, "Exit codes:\n");
    assert_eq!(codes(page.lines()), help);

    let documented = include_str!("../../docs/scripting.md");
    let documented = section(documented, "| exit code | meaning |\n| --- | --- |\n");
    let documented = codes(documented.lines());
    assert_eq!(documented.len(), help.len());
    for ((code, told), (same, meaning)) in documented.into_iter().zip(help) {
        assert_eq!(code, same);
        assert!(told.replace('`', "").starts_with(meaning), "{code}: {told}");
    }
}
