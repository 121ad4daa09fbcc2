"""What keeps services from working on this machine, and the command that fixes it.

:func:`~svcnat.agent.doctor.gather.gather` looks, and changes nothing; :func:`~svcnat.agent.doctor.examine.examine` is
pure and judges what was seen. Whether the rules equal the objects is not asked here: ``svcnat status`` does.
"""
