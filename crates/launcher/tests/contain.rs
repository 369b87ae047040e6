//! Real environments on this machine's kernel. Needs root, as the server does, and fails without it.
#![allow(clippy::unwrap_used)]

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use ondol_core::identity::EnvironmentId;
use ondol_launcher::channel::{pair, receive, send};
use ondol_protocol::containment::*;

struct Launcher {
    socket: OwnedFd,
    process: Child,
    folder: PathBuf,
    /// A group of its own: tests run side by side, and one of them sweeps.
    group: String,
}

/// No test of its own: what the others start, so that the launcher is the single-threaded process it is in life.
#[test]
fn launcher_process() {
    if std::env::var_os("ONDOL_TEST_LAUNCHER").is_some() {
        let socket = rustix::io::dup(rustix::stdio::stdin()).unwrap();
        ondol_launcher::serve(&socket).unwrap();
    }
}

impl Launcher {
    fn start(name: &str) -> Self {
        let (ours, theirs) = pair().unwrap();
        let folder = std::env::temp_dir().join(format!("ondol-contain-{name}-{}", std::process::id()));
        for place in ["usr", "etc", "proc", "dev", "sys", "tmp", "run", "var/task"] {
            std::fs::create_dir_all(folder.join("root").join(place)).unwrap();
        }
        for link in ["bin", "lib", "lib64"] {
            let _ = std::os::unix::fs::symlink(format!("usr/{link}"), folder.join("root").join(link));
        }
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "launcher_process", "--test-threads=1"])
            .env("ONDOL_TEST_LAUNCHER", "1")
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { socket: ours, process, folder, group: format!("test-{name}-{}", std::process::id()) }
    }

    fn launch(&self, number: u128, script: &str, memory_bytes: u64) -> (String, Exit) {
        let request = LaunchRequest {
            environment: EnvironmentId(number),
            tier: Tier::Container {
                root: self.folder.join("root"),
                mounts: vec![
                    Mount::ReadOnly { source: "/usr".into(), target: "/usr".into() },
                    Mount::Scratch { target: "/tmp".into(), bytes: 1 << 20, files: 16 },
                    Mount::Files {
                        target: "/sys".into(),
                        files: vec![("fs/cgroup/cpu.max".into(), "50000 100000\n".into())],
                    },
                ],
                first_host_id: 2_000_000,
            },
            hostname: "inside".into(),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            variables: vec![("PATH".into(), "/usr/bin".into())],
            working_directory: "/var/task".into(),
            groups: vec![
                GroupLimits { name: self.group.clone(), cpu_millis: None, memory_bytes: 1 << 30, pids: None },
                GroupLimits {
                    name: format!("e{number}"),
                    cpu_millis: Some(1_000),
                    memory_bytes,
                    pids: Some(32),
                },
            ],
            run_folder: self.folder.join(format!("run-{number}")),
        };
        send(&self.socket, &LauncherRequest::Launch(Box::new(request)), &[]).unwrap();
        let (event, mut ends) = receive::<LauncherEvent>(&self.socket).unwrap().unwrap();
        assert_eq!(event, LauncherEvent::Launched { environment: EnvironmentId(number) });
        let mut output = String::new();
        std::fs::File::from(ends.remove(1)).read_to_string(&mut output).unwrap();
        match receive::<LauncherEvent>(&self.socket).unwrap().unwrap().0 {
            LauncherEvent::Exited { exit, .. } => (output, exit),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let (closed, _) = pair().unwrap();
        drop(std::mem::replace(&mut self.socket, closed));
        assert!(self.process.wait().unwrap().success());
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

#[test]
fn what_an_environment_sees_and_may_do() {
    let launcher = Launcher::start("sees");
    let script = "id -u; hostname; cat /sys/fs/cgroup/cpu.max; pwd; ls /proc | grep -c '^[0-9]'; \
        touch /x /usr/x /var/task/x 2>/dev/null && echo wrote-root; touch /tmp/x && echo wrote-tmp; \
        mount -t tmpfs t /tmp 2>/dev/null && echo mounted; kill -9 1 2>/dev/null; \
        test -S /run/telemetry/log.sock && echo has-log-socket; \
        head -c 2000000 /dev/zero > /tmp/big 2>/dev/null || echo tmp-is-bounded; \
        echo $AWS_LAMBDA_RUNTIME_API | cut -d: -f1; cat /proc/self/status | grep NoNewPrivs; exit 3";
    let (output, exit) = launcher.launch(1, script, 1 << 28);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines,
        [
            "993",
            "inside",
            "50000 100000",
            "/var/task",
            "3",
            "wrote-tmp",
            "has-log-socket",
            "tmp-is-bounded",
            "127.0.0.1",
            "NoNewPrivs:\t1"
        ],
        "{output}"
    );
    assert_eq!(exit, Exit::Code(3));
}

#[test]
fn memory_and_process_limits_bite() {
    let launcher = Launcher::start("limits");
    // A line without an end: it takes memory until it is stopped.
    let (_, exit) = launcher.launch(2, "exec tail /dev/zero", 1 << 26);
    assert_eq!(exit, Exit::OutOfMemory);
    let (output, _) = launcher.launch(3, "for i in $(seq 60); do sleep 5 & done 2>&1; echo end", 1 << 28);
    assert!(!output.contains("end") || output.contains("fork"), "{output}");
}

#[test]
fn a_program_that_is_not_there_says_so() {
    let launcher = Launcher::start("missing");
    let (_, exit) = launcher.launch(4, "exec /no/such/program", 1 << 28);
    assert_eq!(exit, Exit::Code(127));
}

#[test]
fn when_the_server_goes_everything_goes() {
    let launcher = Launcher::start("gone");
    let group = launcher.group.clone();
    drop(launcher);
    assert!(ondol_launcher::cgroup::sweep(&group).is_ok());
}
