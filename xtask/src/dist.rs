//! `cargo xtask dist`: what others install. One static binary, a tarball, a Debian package, checksums.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::prepare::{packages, say, target};
use crate::shell::{repository, run, run_quietly};

const SHELLS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/ondol"),
    ("zsh", "usr/share/zsh/vendor-completions/_ondol"),
    ("fish", "usr/share/fish/vendor_completions.d/ondol.fish"),
];

/// Gives the folder with everything in it.
pub fn dist() -> Result<PathBuf> {
    packages(&[("cc", "gcc"), ("dpkg-deb", "dpkg"), ("gzip", "gzip")])?;
    let version = version()?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no package is made for {other}"),
    };
    let out = target().join("dist");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out)?;
    let binary = binary()?;
    fs::copy(&binary, out.join("ondol"))?;
    for name in ["Dockerfile", "ondol.service"] {
        fs::copy(repository().join("packaging").join(name), out.join(name))?;
    }
    say("packing");
    let tree = out.join("tree");
    lay_out(&tree, &out.join("ondol"))?;
    let tarball = format!("ondol-{version}-{}-linux.tar.gz", std::env::consts::ARCH);
    run(Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-C"])
        .arg(&tree)
        .arg("-czf")
        .arg(out.join(&tarball))
        .arg("."))?;
    let package = format!("ondol_{version}_{architecture}.deb");
    control(&tree, &version, architecture)?;
    run_quietly(
        Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(out.join(&package)),
    )?;
    fs::remove_dir_all(&tree)?;
    let sums = Command::new("sha256sum").current_dir(&out).args(["ondol", &tarball, &package]).output()?;
    fs::write(out.join("SHA256SUMS"), &sums.stdout)?;
    print!("{}", String::from_utf8_lossy(&sums.stdout));
    Ok(out)
}

fn version() -> Result<String> {
    let text = fs::read_to_string(repository().join("Cargo.toml"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    line.map(str::to_owned).context("the workspace has no version")
}

/// With the C library in it: it runs on every Linux of its architecture.
fn binary() -> Result<PathBuf> {
    say("building the server (release, static)");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = target().join("static");
    run(Command::new(env!("CARGO"))
        .current_dir(repository())
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols")
        .args(["build", "--quiet", "--release", "--package", "ondol", "--target", &triple, "--target-dir"])
        .arg(&folder))?;
    Ok(folder.join(triple).join("release/ondol"))
}

/// Everything where it is installed.
fn lay_out(tree: &Path, binary: &Path) -> Result<()> {
    let place = |path: &str| -> Result<PathBuf> {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        Ok(path)
    };
    fs::copy(binary, place("usr/bin/ondol")?)?;
    let said = |arguments: &[&str]| -> Result<Vec<u8>> {
        let output = Command::new(binary).args(arguments).output()?;
        if !output.status.success() {
            bail!("ondol {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    };
    for (shell, path) in SHELLS {
        fs::write(place(path)?, said(&["completions", shell])?)?;
    }
    let pages = place("usr/share/man/man1/ondol.1")?.with_file_name("");
    said(&["manual", &pages.display().to_string()])?;
    for page in fs::read_dir(&pages)? {
        run(Command::new("gzip").args(["-9n"]).arg(page?.path()))?;
    }
    let packaging = repository().join("packaging");
    fs::copy(packaging.join("ondol.service"), place("usr/lib/systemd/system/ondol.service")?)?;
    fs::copy(packaging.join("ondol.default"), place("etc/default/ondol")?)?;
    for name in ["LICENSE", "NOTICE", "README.md", "CHANGELOG.md"] {
        fs::copy(repository().join(name), place(&format!("usr/share/doc/ondol/{name}"))?)?;
    }
    Ok(())
}

fn control(tree: &Path, version: &str, architecture: &str) -> Result<()> {
    let folder = tree.join("DEBIAN");
    fs::create_dir_all(&folder)?;
    let text = format!(
        "Package: ondol\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: The Ondol developers <ondol@example.org>\nSection: net\nPriority: optional\nRecommends: debootstrap, python3-pip, npm, cmake, make, g++\nDescription: AWS Lambda Managed Instances on machines you own\n Functions run warm, many requests to an execution environment, behind the AWS\n Lambda API. The recommended packages are what `ondol runtime install` needs.\n"
    );
    fs::write(folder.join("control"), text)?;
    fs::write(folder.join("conffiles"), "/etc/default/ondol\n")?;
    let scripts = [
        (
            "postinst",
            "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\nif [ \"$1\" = configure ] && [ -z \"$2\" ]; then\n    echo 'Install runtimes with: ondol runtime install python3.13; then: systemctl enable --now ondol'\nfi\n",
        ),
        (
            "prerm",
            "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ] && [ \"$1\" = remove ]; then systemctl disable --now ondol || true; fi\n",
        ),
    ];
    for (name, text) in scripts {
        let path = folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
