"""Whatever can run a model: one literal table, one small module for each library. Grep the id you typed.

What cannot run here stays listed, with its reason. To add one: a module (see base.RuntimeModule) and a line in RUNTIMES.
"""

from toolkit.runtimes.base import Runtime, Session
from toolkit.runtimes.table import RUNTIMES, find, select

__all__ = ["RUNTIMES", "Runtime", "Session", "find", "select"]
