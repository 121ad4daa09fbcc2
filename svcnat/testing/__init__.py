"""Labs for tests: the pytest plugin, and the object that its fixtures give.

:mod:`svcnat.testing.plugin` is loaded by every pytest run of whoever has svcnat installed, and imports nothing of
svcnat; the rest is imported by the first test that uses a fixture. What a lab is, is :mod:`svcnat.api`'s subject.
"""
