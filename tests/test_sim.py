"""`ondol sim`: predictions without a server, the same bytes for the same seed, and bad input told with its place."""

import json
import subprocess

import pytest
from conftest import BIN


def sim(*arguments, code=0):
    done = subprocess.run([BIN, "sim", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == code, done
    return done


def test_a_prediction_as_json_csv_and_picture_is_the_same_for_the_same_seed(tmp_path):
    def files(name, seed):
        places = [tmp_path / f"{name}.csv", tmp_path / f"{name}.svg"]
        done = sim("five-calls", "--seed", seed, "--json", "--csv", places[0], "--svg", places[1])
        return [done.stdout, *[place.read_text() for place in places]]

    first = files("first", 7)
    assert first == files("again", 7) and first != files("other", 8)
    page = json.loads(first[0])
    assert page["throttles"] == {"total": 2, "concurrency": 2, "cpu": 0, "memory": 0, "disk": 0}
    assert [count for _, count in page["functions"][0]["wanted"]] == [3, 9, 6, 3]
    assert {"p50", "p99", "p999"} <= set(page["latency_millis"]) and page["vcpu_hours"] > 0
    assert first[1].startswith("second,arrivals,throttles,") and first[2].startswith("<svg")


def test_settings_on_the_command_line_hold():
    page = json.loads(sim("--workload", "poisson", "--rate", "20", "--duration-ms", "200", "--cpu-share", "0",
                          "--concurrency", "4", "--min", "5", "--max", "5", "--seconds", "300", "--json").stdout)
    assert page["environments"] == {"least": 5, "most": 5, "at_end": 5} and page["duration_seconds"] == 300
    assert 5_000 < page["arrivals"] < 7_000
    table = sim("--workload", "double", "--rate", "20").stdout
    assert "throttled               0 " in table


def test_traces_of_both_forms(tmp_path):
    calls = tmp_path / "calls.csv"
    calls.write_text("function,arrival_seconds,duration_ms\na,0.5,100\nb,1,2000\na,1,50\n")
    page = json.loads(sim("--trace", calls, "--json").stdout)
    assert (page["arrivals"], [f["name"] for f in page["functions"]]) == (3, ["a", "b"])
    minutes = tmp_path / "minutes.csv"
    minutes.write_text("HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,p,f,http,10,0,5\no,p,g,timer,0,7,0\n")
    page = json.loads(sim("--trace", minutes, "--json").stdout)
    assert (page["arrivals"], page["duration_seconds"]) == (22, 180)


@pytest.mark.parametrize("name, text, told", [
    ("calls.csv", "function,arrival_seconds,duration_ms\na,0.5,100\na,0.25,50\n", "line 3, column 3"),
    ("calls.csv", "function,arrival_seconds,duration_ms\na,0.5,long\n", "line 2, column 7"),
    ("minutes.csv", "HashOwner,HashFunction,1,2\no,f,3,-1\n", "line 2, column 7"),
    ("scenario.toml", "duration_seconds = 60\n[[function]]\nmax_concurency = 3\n", "line 3, column 1"),
    ("scenario.toml", "[[function]]\nmin_execution_environments = 5\nmax_execution_environments = 2\n", "less than or equal to Max"),
    ("scenario.toml", "[capacity]\nallowed_instance_types = ['c*']\nexcluded_instance_types = ['m*']\n[[function]]\n", "takes one of them"),
])
def test_bad_input_is_told_with_its_place(tmp_path, name, text, told):
    path = tmp_path / name
    path.write_text(text)
    done = sim(*(["--trace", path] if name.endswith("csv") else [path]), code=1)
    assert told in done.stderr and done.stdout == "", done
    assert sorted(tmp_path.iterdir()) == [path]


def test_what_is_not_there_is_said():
    assert "there are: double-in-five-minutes" in sim("nonsense", code=1).stderr
    assert "No such file" in sim("--trace", "/nonexistent.csv", code=1).stderr
    assert "No such file" in sim("replay", "/nonexistent", code=1).stderr
    assert {row["name"] for row in json.loads(sim("list", "--json").stdout)} >= {"five-calls", "zone-lost"}
