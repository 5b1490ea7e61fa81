"""Mutants in NumPy whose rows end as ``failed``: they break the interface or the protocol."""

import json
import os
import sys
from pathlib import Path

from mutant_bases import GradientMutant, Mutant
from mutants_stated import Caught


class GradList(GradientMutant):
    """F20: returns the gradients in a list."""

    name = "mutant-gradients-in-a-list"
    caught = Caught(status="failed", phase="prepare", modes=("forward_backward",), reason="backward returned a list")

    def spoil(self, *gradients):
        return list(gradients)


class ForgesBlindly(Mutant):
    """C10: writes what looks like a reply into every pipe that it can find."""

    name = "mutant-forges-blindly"
    caught = Caught(status="failed", phase="prepare", reason="broke the protocol")

    def output(self, input1, input2, weight, bias):
        for path in Path("/proc/self/fd").iterdir():
            try:
                os.write(int(path.name), b'{"id": 2, "ok": true, "prepare_seconds": 0.0, "first_call_seconds": 0.0}\n')
            except OSError:
                continue
        return super().output(input1, input2, weight, bias)


class ForgesAndExits(Mutant):
    """C10: finds the request's number on the stack, writes a reply with it, and exits."""

    name = "mutant-forges-and-exits"
    caught = Caught(status="failed", phase="prepare", reason="exited with code 0")

    def output(self, input1, input2, weight, bias):
        frame = sys._getframe()
        while frame is not None and "nonce" not in frame.f_locals:
            frame = frame.f_back
        reply = {"error": "exited with code 0", "location": None, "traceback": "", "out_of_memory": False}
        forged = json.dumps({"id": frame.f_locals["nonce"], "failed": True, "reply": reply})
        os.write(frame.f_locals["replies"].fileno(), forged.encode() + b"\n")
        os._exit(0)
