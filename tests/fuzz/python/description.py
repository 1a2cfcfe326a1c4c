"""Rig, spec and contract as texts from Python, lone surrogates among them."""

from imkd_edge.bundle.contract import Contract
from imkd_edge.errors import Error
from imkd_edge.rig import SensorRig
from imkd_edge.spec import ModelSpec


def run(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for kind in (SensorRig, ModelSpec, Contract):
        try:
            value = kind.from_json(text)
        except Error as fault:
            assert str(fault).startswith("error[E")
        else:
            again = value.to_json()
            assert kind.from_json(again).to_json() == again
