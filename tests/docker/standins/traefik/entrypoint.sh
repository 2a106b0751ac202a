#!/bin/sh
# Flags and Traefik's own commands are meant for Traefik, everything else is run as it is.
case $1 in -* | healthcheck | version) set -- traefik "$@" ;; esac
exec "$@"
