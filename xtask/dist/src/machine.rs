//! A Debian machine: a container that boots systemd, made from Debian's packages.

use std::{path::Path, process::Output, time::Duration};

use anyhow::{Context as _, Result, bail};
use testbed::{cmd, wait_for};

const IMAGE: &str = "minitorrent-base-machine";
const NAME: &str = "minitorrent-dist";
const BOOTS: Duration = Duration::from_secs(60);

/// What this machine lacks for a Debian machine, or `None`.
pub(crate) fn missing() -> Result<Option<&'static str>> {
    if !cmd::works("docker", &["version"]) {
        return Ok(Some("no Docker engine answers"));
    }
    let mmdebstrap = cmd::installed("mmdebstrap", &["--version"])?;
    Ok((!mmdebstrap).then_some("mmdebstrap is not installed, which makes the image of a Debian machine"))
}

/// The machine. It is removed when this is dropped.
pub(crate) struct Machine;

impl Machine {
    /// Boots a machine.
    pub(crate) fn boot() -> Result<Self> {
        cmd::run(cmd::command("bash", &["xtask/assets/bases.sh", &format!("machine={IMAGE}")]))?;
        let machine = Self;
        machine.clear();
        // systemd has to manage control groups and mounts, and a service's sandbox is made of system calls that
        // Docker's filter forbids.
        let mut argv =
            vec!["run", "--detach", "--name", NAME, "--hostname", "machine", "--cap-add", "SYS_ADMIN"];
        argv.extend(["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]);
        argv.extend(["--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]);
        argv.extend(["--tmpfs", "/run", "--tmpfs", "/tmp", "--env", "container=docker", IMAGE, "/sbin/init"]);
        cmd::capture(cmd::command("docker", &argv))?;
        wait_for("the machine boots", BOOTS, || {
            let state = machine.output("systemctl is-system-running")?;
            let state = String::from_utf8_lossy(&state.stdout);
            // `degraded` is up too: a container can't have all units of the base.
            Ok(["running", "degraded"].contains(&state.trim()).then_some(()))
        })?;
        // The image leaves manual pages out.
        machine.run("rm -f /etc/dpkg/dpkg.cfg.d/*")?;
        Ok(machine)
    }

    /// Runs a line of shell as root and returns its output, whatever its exit code.
    pub(crate) fn output(&self, line: &str) -> Result<Output> {
        cmd::output(cmd::command("docker", &["exec", "--interactive", NAME, "sh", "-ec", line]), b"")
    }

    /// Runs a line of shell as root and returns what it printed. Fails if the line fails.
    pub(crate) fn run(&self, line: &str) -> Result<String> {
        let output = self.output(line)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            bail!("on the machine, `{line}` failed ({}):\n{out}{err}", output.status);
        }
        Ok(text(&output.stdout))
    }

    /// Copies a file into a directory of the machine.
    pub(crate) fn take(&self, file: &Path, into: &str) -> Result<String> {
        let name = file.file_name().context("a file has a name")?.to_string_lossy();
        // `docker cp` does not see what is mounted in the container.
        cmd::capture(cmd::command("docker", &["cp", &file.to_string_lossy(), &format!("{NAME}:{into}")]))?;
        Ok(format!("{into}/{name}"))
    }

    fn clear(&self) {
        let _ = cmd::output(cmd::command("docker", &["rm", "--force", "--volumes", NAME]), b"");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.clear();
    }
}
