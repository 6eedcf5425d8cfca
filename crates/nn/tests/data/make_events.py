"""Makes events.out.tfevents.1700000000.host with TensorBoard's own classes.

pip install tensorboard==2.21.0; python make_events.py
"""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

SCALARS = [
    ([("loss/train", 2.5)], 0, 1_700_000_001.0),
    ([("loss/train", 0.1), ("größe", -3.0)], 1, 1_700_000_002.5),
    ([("loss/train", float("nan")), ("x", float("inf"))], 300, 1_700_000_003.0),
    ([("zero", 0.0)], 2**63 - 1, 1_700_000_004.0),
    ([("long " * 60, 1e-3)], 2**40, 1_700_000_005.0),
]

path = Path(__file__).parent / "events.out.tfevents.1700000000.host"
with open(path, "wb") as file:
    writer = RecordWriter(file)
    first = Event(wall_time=1_700_000_000.25, file_version="brain.Event:2")
    writer.write(first.SerializeToString())
    for values, step, time in SCALARS:
        entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values]
        event = Event(wall_time=time, step=step, summary=Summary(value=entries))
        writer.write(event.SerializeToString())
    writer.flush()
