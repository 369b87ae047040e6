"""The Ondols behind the proxy: one for each region that is asked for, fresh after every reset.

Starting one takes some 20 ms, so a reset is a new server with an empty data folder: nothing a test left behind can
survive it, and there is no list of things to delete that somebody has to keep complete.
"""

import re
import shutil
import signal
import subprocess
import tempfile
import threading

ACCOUNT = "123456789012"  # moto's, which its tests name


class Ondols:
    def __init__(self, binary, services):
        """`services` is where code and event sources come from: {"s3": "http://…"}."""
        self.binary = binary
        shown = subprocess.run([binary, "up", "--help"], capture_output=True, text=True, check=True).stdout
        self.known = set(re.findall(r"--[a-z-]+", shown))
        self.services = ",".join(f"{name}={url}" for name, url in services.items())
        # A name that is none is refused, with those that are.
        refused = subprocess.run([binary, "up", "--port", "0", "--quota", "none=1"], capture_output=True, text=True).stderr
        self.quotas = sorted(set(re.findall(r"[a-z-]+-per-second", refused)))
        self.lock = threading.Lock()
        self.running = {}

    def flags(self, region):
        """What moto's tests assume of their server, as far as this binary can be told."""
        wanted = {
            "--auth": "off",
            "--account-id": ACCOUNT,
            "--region": region,
            "--service-endpoint": self.services,
            "--drain-seconds": "0",
        }
        # Tests ask as fast as they can; how fast an account may ask is not what they are about.
        given = [*wanted.items(), *(("--quota", f"{name}=100000") for name in self.quotas)]
        return [word for name, value in given if name in self.known for word in (name, value)]

    def missing(self):
        return sorted({"--auth", "--account-id", "--region", "--service-endpoint"} - self.known)

    def port(self, region):
        """The port of the region's server, started if it does not run."""
        with self.lock:
            if region not in self.running:
                self.running[region] = self.start(region)
            return self.running[region][2]

    def start(self, region):
        folder = tempfile.mkdtemp(prefix="ondol-moto-")
        process = subprocess.Popen(
            [self.binary, "up", "--port", "0", "--data-dir", folder, *self.flags(region)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seen = ""
        for line in process.stdout:
            seen += line
            found = re.search(r"AWS_ENDPOINT_URL=http://\S+:(\d+)", line)
            if found:
                # Nobody reads on: a server that has much to say must not wait for a full pipe.
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return process, folder, int(found.group(1))
        raise RuntimeError(f"the server for {region} did not start:\n{seen}")

    def reset(self):
        with self.lock:
            stopped, self.running = list(self.running.values()), {}
            for process, _, _ in stopped:
                process.send_signal(signal.SIGTERM)
            for process, folder, _ in stopped:
                process.wait(60)
                shutil.rmtree(folder, ignore_errors=True)
