"""`belt`: the command line.

main            names and summaries of the commands; a command's module is imported when it runs
commands/       one module per command
local/          `belt up`: the bus, the gateway and the workers as processes of this machine
demo/           `belt demo`
output          results on stdout; progress, notes and errors on stderr
connection      addresses of the bus and the gateway
gateway_client  HTTP requests to the gateway
live_view       shows runs while they happen
publish         publishes events in the name of a person
project_check   checks a model project before it is pushed
input_rows      reads rows and labels from files
git             reads commit, user and hooks folder from git
testing         runs a project's tests as the trainer does: `python -m belt.testing PROJECT`

Runs and the sentence for each event come from `services/timeline`.
"""
