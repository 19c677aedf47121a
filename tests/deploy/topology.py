"""Reads the queues and their arguments from common/queue/src/rabbitmq/topology.rs.

A queue's arguments are part of its identity, so manifests that declare queues must have the same. This
reads the text of the source. If the source is written in a way that it cannot read, it says so.
"""

import re
from pathlib import Path

SOURCE = Path("common/queue/src/rabbitmq/topology.rs")


def declared(name, delays):
    """{queue: arguments} for a first part of names and delays in seconds."""
    text = SOURCE.read_text()
    constants = {
        "DELIVERY_LIMIT": _one(r"const DELIVERY_LIMIT: i32 = (\d+);", text, int),
        "NO_DELIVERY_LIMIT": 2**31 - 1
        if "const NO_DELIVERY_LIMIT: i32 = i32::MAX;" in text
        else _one(r"const NO_DELIVERY_LIMIT: i32 = (\d+);", text, int),
    }
    common = _inserted(_body("quorum", text), constants)
    dead_lettering = {**common, **_inserted(_body("dead_lettering_to", text), constants)}
    create = _body("create", text)
    dead, ours, retries = re.fullmatch(
        r"(.*?)(for name in \[&self\.suspects, &self\.jobs\].*?)(for \(delay, name\).*)", create, re.S
    ).groups()
    to = lambda target: {**dead_lettering, "x-dead-letter-routing-key": f"{name}.{target}"}
    _must("dead_lettering_to(&self.dead)", ours)
    _must("dead_lettering_to(&self.jobs)", retries)
    _must('insert(&mut retry, "x-message-ttl", AMQPValue::LongLongInt(ttl_ms))', retries)
    queues = {f"{name}.dead": {**common, **_inserted(dead, constants)}}
    for queue in ("suspects", "jobs"):
        queues[f"{name}.{queue}"] = {**to("dead"), **_inserted(ours, constants)}
    for delay in delays:
        queues[f"{name}.retry.{delay}"] = {**to("jobs"), "x-message-ttl": delay * 1000}
    return queues


def _inserted(text, constants):
    """What `insert(…, key, value)` puts in; the target of dead letters aside."""
    arguments = {}
    for key, value in re.findall(r'insert\(\s*&mut \w+,\s*"([^"]+)",\s*(.+?)\);', text):
        if quoted := re.fullmatch(r'text\("(.*)"\)', value):
            arguments[key] = quoted[1]
        elif number := re.fullmatch(r"AMQPValue::LongInt\((\w+)\)", value):
            arguments[key] = constants[number[1]]
        elif value not in ("text(target.as_str())", "AMQPValue::LongLongInt(ttl_ms)"):
            raise ValueError(f"{SOURCE}: {key} has a value that is not understood here: {value}")
    return arguments


def _body(function, text):
    return _one(rf"fn {function}\(.*?\n(.*?)\n {{0,4}}}}\n", text, str, re.S)


def _one(pattern, text, kind, flags=0):
    found = re.findall(pattern, text, flags)
    if len(found) != 1:
        raise ValueError(f"{SOURCE}: {pattern!r} is there {len(found)} times, not once")
    return kind(found[0])


def _must(part, text):
    if part not in text:
        raise ValueError(f"{SOURCE}: {part!r} is not where it was")
