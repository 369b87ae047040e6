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
        ondol_launcher::cgroup::prepare().unwrap();
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

    fn request(&self, number: u128, script: &str, memory_bytes: u64) -> LaunchRequest {
        LaunchRequest {
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
            extensions: Vec::new(),
            extension_variables: vec![("PATH".into(), "/usr/bin".into())],
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
            log: LogChannel::Socket,
            run_folder: self.folder.join(format!("run-{number}")),
        }
    }

    fn send(&self, request: &LauncherRequest) {
        send(&self.socket, request, &[]).unwrap();
    }

    fn hear(&self) -> (LauncherEvent, Vec<OwnedFd>) {
        receive(&self.socket).unwrap().unwrap()
    }

    fn launch(&self, number: u128, script: &str, memory_bytes: u64) -> (String, Exit) {
        self.send(&LauncherRequest::Launch(Box::new(self.request(number, script, memory_bytes))));
        let (event, mut ends) = self.hear();
        assert_eq!(event, LauncherEvent::Launched { environment: EnvironmentId(number) });
        let mut output = String::new();
        std::fs::File::from(ends.remove(1)).read_to_string(&mut output).unwrap();
        match self.hear().0 {
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
    let script = "id -u; hostname; cat /sys/fs/cgroup/cpu.max; pwd; set -- /proc/[0-9]*; echo $#; \
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
            // The shell itself, and no other.
            "1",
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
fn layers_lie_over_each_other_and_extensions_run_beside_the_runtime() {
    use std::os::unix::fs::PermissionsExt as _;
    let launcher = Launcher::start("layers");
    std::fs::create_dir_all(launcher.folder.join("root/opt")).unwrap();
    let file = |layer: &str, path: &str, text: &str| {
        // A comma and a colon: they separate options and paths of the mount.
        let path = launcher.folder.join(format!("layer,{layer}:x")).join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    file("1", "both", "first");
    file("1", "lib/one", "1");
    file("2", "both", "second");
    file("2", "lib/two", "2");
    file(
        "2",
        "extensions/long",
        "#!/bin/sh\necho extension; trap 'echo bye; exit 4' TERM; while :; do sleep 0.01; done",
    );
    file("1", "extensions/short", "#!/bin/sh\nexit 7");
    let script = "cat /opt/both /opt/lib/one /opt/lib/two; touch /opt/x 2>/dev/null && echo wrote; exit 5";
    let mut request = launcher.request(5, script, 1 << 28);
    request.extensions = vec!["/opt/extensions/long".into(), "/opt/extensions/short".into()];
    if let Tier::Container { mounts, .. } = &mut request.tier {
        let sources = ["1", "2"].map(|layer| launcher.folder.join(format!("layer,{layer}:x"))).to_vec();
        mounts.push(Mount::Layers { sources, target: "/opt".into() });
    }
    let environment = EnvironmentId(5);
    launcher.send(&LauncherRequest::Launch(Box::new(request)));
    let (event, mut ends) = launcher.hear();
    assert_eq!(event, LauncherEvent::Launched { environment });
    let ended = |process, exit| LauncherEvent::ProcessEnded { environment, process, exit };
    assert_eq!(launcher.hear().0, ended(Process::Extension(1), Exit::Code(7)));
    launcher.send(&LauncherRequest::StartRuntime { environment });
    assert_eq!(launcher.hear().0, ended(Process::Runtime, Exit::Code(5)));
    let mut written = [0; 10];
    let mut extensions = std::fs::File::from(ends.remove(3));
    extensions.read_exact(&mut written).unwrap();
    let signal = Signal::Terminate;
    launcher.send(&LauncherRequest::Signal { environment, process: Process::Extension(0), signal });
    assert_eq!(launcher.hear().0, ended(Process::Extension(0), Exit::Code(4)));
    let LauncherEvent::Exited { exit, peak_memory_bytes, .. } = launcher.hear().0 else {
        panic!("not ended")
    };
    assert_eq!(exit, Exit::Code(5));
    assert!(peak_memory_bytes.is_some_and(|bytes| bytes > 0), "{peak_memory_bytes:?}");
    let (mut output, mut rest) = (String::new(), String::new());
    std::fs::File::from(ends.remove(1)).read_to_string(&mut output).unwrap();
    extensions.read_to_string(&mut rest).unwrap();
    assert_eq!((output.as_str(), &written, rest.as_str()), ("second12", b"extension\n", "bye\n"));
}

#[test]
fn the_runtime_inherits_the_pipe_of_its_log() {
    let launcher = Launcher::start("frames");
    // Not every shell takes a descriptor of two digits.
    let script = "exec /usr/bin/bash -c 'echo framed >&$_LAMBDA_TELEMETRY_LOG_FD; echo told'";
    let request = LaunchRequest { log: LogChannel::Frames, ..launcher.request(11, script, 1 << 26) };
    launcher.send(&LauncherRequest::Launch(Box::new(request)));
    let (LauncherEvent::Launched { .. }, ends) = launcher.hear() else { panic!("not launched") };
    let [_, output, _, _, log] = <[OwnedFd; 5]>::try_from(ends).unwrap();
    // Each pipe ends with its last writer: nobody else holds one.
    let read = |end: OwnedFd| std::io::read_to_string(std::fs::File::from(end)).unwrap();
    assert_eq!((read(log).as_str(), read(output).as_str()), ("framed\n", "told\n"));
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
