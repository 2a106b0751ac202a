#!/bin/sh
# A file is the configuration to serve with, anything else a command of the registry's.
case $1 in
*.yml | *.yaml) set -- serve "$@" ;;
sh) shift && exec /bin/sh "$@" ;;
esac
exec /bin/registry "$@"
