"""What `ondol sim` says of a load that was sent to a server, and both beside each other."""

import csv
import json
import math
import statistics
import subprocess

from conftest import BIN

# Nobody knows where in the second between two looks at what is used a load begins: a prediction is made for each of these.
PHASES = (0.0, 0.2, 0.4, 0.6, 0.8)
# On a server an instance is a share of the machine, there at once; and it looks at what is in flight five times a second.
CAPACITY = """
time_scale = {time_scale}
refresh_millis = 200
launch = {{ seconds_min = 0.0, seconds_max = 0.0 }}
start = {{ millis_min = {start_min}, millis_max = {start_max} }}
"""


class Prediction:
    """The summaries of one scenario, one for each phase."""

    def __init__(self, folder, scenario, time_scale, starts, outcomes=(), seconds=None, name="function"):
        """Of a scenario's text, with the starts that were measured; the load is the scenario's, or what was sent."""
        assert starts, "no start of an environment was seen"
        millis = [round(start * 1_000) for start in starts]
        # Without the tenth that was fastest, and the tenth that was slowest.
        self.start_millis = millis[len(millis) // 10], millis[-1 - len(millis) // 10]
        head = CAPACITY.format(time_scale=time_scale, start_min=self.start_millis[0], start_max=self.start_millis[1])
        file = folder / "scenario.toml"
        file.write_text(head + scenario)
        self.summaries = []
        for number, phase in enumerate(PHASES):
            command = [BIN, "sim", file, "--seed", str(number + 1), "--json"]
            if seconds:
                command += ["--seconds", str(math.ceil(seconds))]
            if outcomes:
                command += ["--trace", trace(folder / f"{number}.csv", name, outcomes, phase)]
            out = subprocess.run(command, capture_output=True, text=True)
            assert out.returncode == 0, out.stderr
            self.summaries.append(json.loads(out.stdout))

    def each(self, of):
        return [of(summary) for summary in self.summaries]

    def throttles(self):
        return self.each(lambda summary: summary["throttles"]["total"])

    def causes(self):
        """Every cause that any of them names."""
        return {cause for summary in self.summaries for cause, count in summary["throttles"].items() if count and cause != "total"}

    def late_throttles(self, seconds):
        """In the last so many seconds."""
        return self.each(lambda summary: sum(summary["timeline"]["throttles"][-seconds:]))

    def paths(self):
        return self.each(lambda summary: [count for _, count in summary["functions"][0]["wanted"]])

    def peaks(self):
        return [max(path) for path in self.paths()]

    def environments(self, which):
        return self.each(lambda summary: summary["environments"][which])

    def median_millis(self):
        return self.each(lambda summary: summary["latency_millis"]["p50"])


def trace(file, name, outcomes, phase):
    """The invocations as they were sent, with the durations they asked for."""
    with open(file, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["function", "arrival_seconds", "duration_seconds"])
        writer.writerows([name, f"{outcome.sent + phase:.6f}", outcome.duration] for outcome in outcomes)
    return file


class Table:
    """Predicted beside happened, as it is shown and kept in docs/guide/prediction.md."""

    def __init__(self):
        self.rows, self.starts = [], []

    def add(self, case, quantity, predicted, happened):
        if isinstance(predicted[0], list):
            shown = " or ".join(dict.fromkeys(" → ".join(map(str, path)) for path in predicted))
            error = "as predicted" if happened in predicted else "another"
            happened = " → ".join(map(str, happened))
        else:
            middle = statistics.median_low(predicted)
            shown = f"{middle:g}" if min(predicted) == max(predicted) else f"{middle:g} ({min(predicted):g} to {max(predicted):g})"
            error = f"{(middle - happened) / happened * 100:+.0f} %" if happened else ("0 %" if middle == 0 else "–")
            happened = f"{happened:g}"
        self.rows.append((case, quantity, shown, happened, error))

    def text(self):
        head = [("case", "quantity", "predicted", "happened", "error"), ("---",) * 5]
        rows = [f"| {' | '.join(row)} |" for row in head + self.rows]
        starts = [f"{case}: {least} to {most} ms" for case, (least, most) in self.starts]
        return "\n".join([*rows, "", "starts as measured: " + "; ".join(starts)])
