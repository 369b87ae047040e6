"""The service model as the tests read it: botocore's, with our overrides, and values that fit it."""

import functools
import json
import random
import re
import warnings
from re import _constants as sre
from re import _parser as sre_parser

import botocore.session
from botocore.model import ServiceModel

from conftest import ROOT

warnings.filterwarnings("ignore", "Possible", FutureWarning)


def lambda_model():
    """models/lambda.json with models/overrides.json applied, as the generated tables have it."""
    model = json.loads((ROOT / "models/lambda.json").read_text())
    overrides = json.loads((ROOT / "models/overrides.json").read_text())
    for name, change in overrides.get("lambda", overrides).items():
        shape = model["shapes"][name]
        for verb, what in change.items():
            if verb == "drop":
                for key in what:
                    del shape[key]
            elif verb == "set":
                shape.update(what)
            else:
                assert verb == "why", f"{name}: the tests do not know the override {verb!r}"
    return ServiceModel(model, "lambda")


LAMBDA = lambda_model()


@functools.cache
def service(name):
    return LAMBDA if name == "lambda" else botocore.session.get_session().get_service_model(name)


def promised():
    """{(service, operation)} of every line of COMPATIBILITY.md that does not say `unsupported`."""
    found = set()
    heading = None
    for line in (ROOT / "COMPATIBILITY.md").read_text().splitlines():
        if line.startswith("## "):
            heading = line.split()[1].lower()
        row = re.fullmatch(r"\| (\w+) \| (.+) \|", line)
        if row and row[1] != "operation" and row[2] != "unsupported":
            found.add((heading, row[1]))
    return found


def python_pattern(pattern):
    """A pattern of the model, which Java reads, as Python reads it."""
    pattern = pattern.replace(r"\p{L}\p{Z}\p{N}", "a-zA-Z0-9À-ÖØ-öø-ÿ ")
    return pattern.replace(r"\u10000-\u10FFFF", r"\U00010000-\U0010FFFF")


def fits(shape, text):
    """Whether a text keeps a shape's length and pattern; Java matches the whole text."""
    about = shape.metadata
    pattern = about.get("pattern")
    return (
        len(text) >= about.get("min", 0)
        and len(text) <= about.get("max", len(text))
        and (pattern is None or re.fullmatch(python_pattern(pattern), text, re.ASCII) is not None)
    )


def text_of(pattern, chance):
    """A text the pattern is likely to match; look-arounds are left out, so the caller asks again if it does not."""

    def some(items):
        return "".join(one(kind, value) for kind, value in items)

    def one(kind, value):
        if kind is sre.LITERAL:
            return chr(value)
        if kind is sre.NOT_LITERAL:
            return "a" if value != ord("a") else "b"
        if kind is sre.ANY:
            return chance.choice("abc123")
        if kind is sre.IN:
            return chance.choice(members(value))
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, inner = value
            return "".join(some(inner) for _ in range(chance.randint(low, min(high, low + 3))))
        if kind is sre.SUBPATTERN:
            return some(value[-1])
        if kind is sre.BRANCH:
            return some(chance.choice(value[1]))
        assert kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT), f"nobody writes a {kind}"
        return ""

    def members(items):
        negated = any(kind is sre.NEGATE for kind, _ in items)
        # Letters and digits are enough where anything may stand.
        pool = "abcxyzABC0123" if negated or any(kind is sre.CATEGORY for kind, _ in items) else ""
        if any(kind is sre.CATEGORY and value is sre.CATEGORY_DIGIT for kind, value in items) and not negated:
            pool = "0123456789"
        for kind, value in items:
            if kind is sre.LITERAL and not negated:
                pool += chr(value)
            elif kind is sre.RANGE and not negated:
                # Some ranges are a million characters; the first of them do.
                pool += "".join(map(chr, range(value[0], min(value[1] + 1, value[0] + 100))))
        return pool

    return some(parsed(pattern))


@functools.cache
def parsed(pattern):
    return sre_parser.parse(python_pattern(pattern), re.ASCII)


def text_for(shape, chance):
    about = shape.metadata
    if getattr(shape, "enum", None):
        return chance.choice(shape.enum)
    if shape.name == "Runtime":
        # Its enumeration is not the service's own; this one is in both.
        return "python3.13"
    if "pattern" not in about:
        return "a" * max(about.get("min", 0), min(8, about.get("max", 8)))
    for _ in range(5000):
        text = text_of(about["pattern"], chance)
        if text and len(text) < about.get("min", 0):
            text = (text * (about["min"] // len(text) + 1))[: about.get("max")]
        if fits(shape, text) and (text or about.get("min", 0) == 0):
            return text
    raise AssertionError(f"no text found for {shape.name}: {about}")


def value_for(shape, chance, everything=False, depth=0):
    """A value that keeps every constraint of a shape: its required members only, or all of them."""
    about = shape.metadata
    kind = shape.type_name
    if kind == "structure":
        wanted = shape.members if everything and depth < 6 else shape.required_members
        return {name: value_for(shape.members[name], chance, everything, depth + 1) for name in wanted}
    if kind == "list":
        return [value_for(shape.member, chance, everything, depth + 1) for _ in range(max(1, about.get("min", 0)))]
    if kind == "map":
        count = max(1, about.get("min", 0))
        return {text_for(shape.key, chance): value_for(shape.value, chance, everything, depth + 1) for _ in range(count)}
    if kind == "string":
        return text_for(shape, chance)
    if kind == "blob":
        return b"{}"
    if kind == "boolean":
        return True
    if kind == "timestamp":
        return 1_700_000_000
    assert kind in ("integer", "long", "float", "double"), kind
    return about.get("min", 1)


def chance(seed):
    return random.Random(seed)
