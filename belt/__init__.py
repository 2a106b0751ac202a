"""`belt`: the command line. One file per group of commands; what they share:

main      the commands and where each one lives (loaded when it is run)
say       how answers, notes and errors are written
reach     where the bus and the gateway are
history   reads the streams, from their beginning or live
story     pure: what the events of a run add up to
draw      rich tables of it
"""
