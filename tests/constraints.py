"""AWS's texts for what breaks a model's constraints, worked out in Python from the model alone.

An implementation of its own, so that it and the server's agree on the model and the recordings, not on each other.
"""

import re

from service_model import fits, python_pattern

# Elements and values that must not be null say so at the end of their list of constraints. The recorded answers show
# which: `architectures`, `layers` and `additionalVersionWeights` do, `subnetIds` and `securityGroupIds` do not.
NULL = "Member must not be null"
RECORDED_NULL = {"Architecture": True, "LayerVersionArn": True, "Weight": True, "SubnetId": False, "SecurityGroupId": False}


def camel(name):
    return name[:1].lower() + name[1:]


def number(shape, bound):
    return str(float(bound)) if shape.type_name in ("double", "float") else str(int(bound))


def all_of(shape):
    """Every constraint of a shape, as AWS words it, in AWS's order."""
    about = shape.metadata
    measure = "value" if shape.type_name in ("integer", "long", "double", "float") else "length"
    texts = []
    if "max" in about:
        texts.append(f"Member must have {measure} less than or equal to {number(shape, about['max'])}")
    if "min" in about:
        texts.append(f"Member must have {measure} greater than or equal to {number(shape, about['min'])}")
    if "pattern" in about:
        texts.append(f"Member must satisfy regular expression pattern: {about['pattern']}")
    if getattr(shape, "enum", None):
        texts.append(f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    return texts


def broken(shape, value):
    """The constraints a value breaks."""
    about = shape.metadata
    size = value if isinstance(value, (int, float)) and not isinstance(value, bool) else len(value) if isinstance(value, (str, list, dict)) else None
    texts = iter(all_of(shape))
    found = []
    if "max" in about:
        text = next(texts)
        if size is not None and size > about["max"]:
            found.append(text)
    if "min" in about:
        text = next(texts)
        if size is not None and size < about["min"]:
            found.append(text)
    if "pattern" in about:
        text = next(texts)
        if isinstance(value, str) and not matches(shape, value):
            found.append(text)
    if getattr(shape, "enum", None):
        text = next(texts)
        if isinstance(value, str) and value not in shape.enum:
            found.append(text)
    return found


def matches(shape, text):
    return re.fullmatch(python_pattern(shape.metadata["pattern"]), text, re.ASCII) is not None


def java(value):
    """A value as Java prints it into the text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(java, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={java(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def shown(shape, value):
    return "'***'" if shape.metadata.get("sensitive") else f"'{java(value)}'"


def violation(value, path, text):
    return f"Value {value} at '{path}' failed to satisfy constraint: {text}"


def nested(what, shape, null):
    """The constraint of a list's or map's plain members: all of them, whichever is broken."""
    texts = all_of(shape) + ([NULL] if null else [])
    return f"{what} must satisfy constraint: [{', '.join(texts)}]"


def nulls(shape):
    """Whether the list of a member's constraints ends with NULL: known, or either."""
    known = RECORDED_NULL.get(shape.name)
    return (True, False) if known is None else (known,)


def violations(shape, value, path=""):
    """Every violation of a value, each as the set of texts that would be right."""
    kind = shape.type_name
    found = []
    if kind == "structure":
        for name, member in shape.members.items():
            at = f"{path}.{camel(name)}" if path else camel(name)
            if value.get(name) is None:
                if name in shape.required_members:
                    found.append({violation("null", at, NULL)})
            else:
                found += violations(member, value[name], at)
        return found
    found += [{violation(shown(shape, value), path, text)} for text in broken(shape, value)]
    if kind == "list":
        if shape.member.type_name in ("structure", "list", "map"):
            for place, item in enumerate(value, 1):
                found += violations(shape.member, item, f"{path}.{place}.member")
        elif any(broken(shape.member, item) for item in value):
            found.append({violation(shown(shape, value), path, nested("Member", shape.member, null)) for null in nulls(shape.member)})
    elif kind == "map":
        if any(broken(shape.key, key) for key in value):
            # A key is never null.
            found.append({violation(shown(shape, value), path, nested("Map keys", shape.key, False))})
        if shape.value.type_name not in ("structure", "list", "map") and any(broken(shape.value, inner) for inner in value.values()):
            found.append({violation(shown(shape, value), path, nested("Map value", shape.value, null)) for null in nulls(shape.value)})
    return found


def bad_values(shape, good):
    """(what, value) that break something of a plain, list or map shape."""
    about = shape.metadata
    kind = shape.type_name
    if kind == "string":
        if "max" in about and about["max"] <= 12_000:
            yield "too long", (good or "a") * 1 + "a" * (about["max"] + 1 - len(good or "a"))
        if about.get("min", 0) >= 1:
            yield "empty", ""
        if about.get("min", 0) >= 2:
            yield "too short", good[: about["min"] - 1]
        if getattr(shape, "enum", None):
            yield "no such value", "NotAValue"
            yield "another case", good.swapcase()
        if "pattern" in about:
            for text in (good + "!", good + " x", good + "/é", good + "\t", good + "\n", "\n" + good):
                if not fits(shape, text) and len(text) <= about.get("max", len(text)):
                    yield "pattern", text
    elif kind in ("integer", "long", "double", "float"):
        if "max" in about:
            yield "too large", about["max"] + 1
        if "min" in about:
            yield "too small", about["min"] - 1
    elif kind == "list":
        if "max" in about:
            yield "too many", good * (about["max"] + 1)
        if about.get("min", 0) >= 1:
            yield "too few", good[: about["min"] - 1]
        if shape.member.type_name not in ("structure", "list", "map"):
            for what, value in bad_values(shape.member, good[0]):
                yield f"element {what}", [value]
                if about.get("max", 2) >= 2:
                    yield f"second element {what}", [good[0], value]
    elif kind == "map":
        if "max" in about and shape.key.type_name == "string" and about["max"] <= 1_000:
            key = next(iter(good))
            yield "too many", {f"{key}{place}": good[key] for place in range(about["max"] + 1)}
        for what, value in bad_values(shape.key, next(iter(good))):
            yield f"key {what}", {value: next(iter(good.values()))}
        if shape.value.type_name not in ("structure", "list", "map"):
            for what, value in bad_values(shape.value, next(iter(good.values()))):
                yield f"value {what}", {next(iter(good)): value}
