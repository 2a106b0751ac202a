"""`belt`: the command line. One file per group of commands, and what they share.

main      the commands and where each one lives (loaded when it is run)
say       how answers, notes and errors are written
reach     where the bus and the gateway are
history   reads the streams, from their beginning or live
wording   pure: one line for a person about an event
story     pure: what the events of a run add up to
screen    shows a story while it happens
"""
