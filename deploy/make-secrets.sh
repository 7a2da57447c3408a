#!/bin/sh
# Make what `docker compose up` needs and nobody may know, once: deploy/secrets/, which git ignores.
# Each file is readable for the containers' users; the folder is its owner's alone.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
draw() { head -c "$1" /dev/urandom | base64 | tr -d '\n'; }
make() { [ -s "secrets/$1" ] || { printf '%s\n' "$2" > "secrets/$1" && chmod 444 "secrets/$1"; }; }
make secret_key "$(draw 48)"
make master_key "sk-$(draw 24 | tr '+/' '-_')"
make postgres_password "$(draw 24 | tr '+/' '-_')"
make postgres_url "postgresql://keystead:$(cat secrets/postgres_password)@postgres:5432/keystead"
[ -e secrets/smtp_password ] || { : > secrets/smtp_password && chmod 444 secrets/smtp_password; }  # yours, if you have one
echo "deploy/secrets/ holds the secrets. The master key: $(cat secrets/master_key)"
