#!/bin/sh
# The self-serve flow in plain curl, from an invitation to an exhausted budget, with no pause between the steps.
#
#   KEYSTEAD_URL         where Keystead listens (http://127.0.0.1:4000)
#   KEYSTEAD_MASTER_KEY  the admin's key, as `make up` printed it
#   KEYSTEAD_MODEL       the model to call (mock-gpt)
#
# Needs curl and python3 (only to read JSON).
set -eu

url=${KEYSTEAD_URL:-http://127.0.0.1:4000}
admin=${KEYSTEAD_MASTER_KEY:?set KEYSTEAD_MASTER_KEY to what make up printed}
model=${KEYSTEAD_MODEL:-mock-gpt}
email="ada.$$.$(date +%s)@example.test"
password="correct horse battery staple"

say() { printf '\n== %s\n' "$*"; }

# field NAME: that member of the JSON object on standard input, dotted for depth
field() {
  python3 -c '
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    value = value[int(name)] if isinstance(value, list) else value[name]
print(value if isinstance(value, str) else json.dumps(value))' "$1"
}

# claim NAME: that claim of the JWT on standard input; a client may read it, rights come from the session
claim() {
  python3 -c '
import base64, json, sys
payload = sys.stdin.read().strip().split(".")[1]
print(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))[sys.argv[1]])' "$1"
}

# call CREDENTIAL METHOD PATH [BODY]: fails with the answer shown if the status is not 200
call() {
  credential=$1 method=$2 path=$3 body=${4:-}
  set -- -sS --fail-with-body -X "$method" "$url$path"
  [ -z "$credential" ] || set -- "$@" -H "Authorization: Bearer $credential"
  [ -z "$body" ] || set -- "$@" -H "Content-Type: application/json" -d "$body"
  curl "$@"
}

say "1. The admin creates ada and invites her"
user_id=$(call "$admin" POST /user/new \
  "{\"user_email\": \"$email\", \"user_role\": \"internal_user\", \"auto_create_key\": false}" | field user_id)
link_id=$(call "$admin" POST /invitation/new "{\"user_id\": \"$user_id\"}" | field id)
echo "$url/ui/onboarding?id=$link_id"

say "2. Ada opens the link, sets a password, and logs in"
token=$(call "" GET "/onboarding/get_token?invite_link=$link_id" | field token)
call "$(echo "$token" | claim key)" POST /onboarding/claim_token \
  "{\"invitation_link\": \"$link_id\", \"user_id\": \"$user_id\", \"password\": \"$password\"}" | field user_email
session=$(call "" POST /v2/login "{\"username\": \"$email\", \"password\": \"$password\"}" | field token | claim key)
call "$session" GET /keystead/v1/me | field user_role

say "3. She makes a key with a budget of 0.0002 USD, and sees it"
key=$(call "$session" POST /key/generate \
  "{\"key_alias\": \"laptop-$user_id\", \"max_budget\": 0.0002, \"budget_duration\": \"1d\", \"duration\": \"30d\"}" | field key)
call "$session" GET /key/list | field total_count
call "$key" GET /key/info | field info.key_name

say "4. An application calls models with it"
call "$key" GET /v1/models | field data.0.id
chat="{\"model\": \"$model\", \"max_tokens\": 20, \"messages\": [{\"role\": \"user\", \"content\": \"Say hello.\"}]}"
call "$key" POST /v1/chat/completions "$chat" | field choices.0.message.content
call "$key" POST /v1/chat/completions \
  "{\"model\": \"$model\", \"stream\": true, \"messages\": [{\"role\": \"user\", \"content\": \"Stream it.\"}]}" | tail -n 2

say "5. What it cost"
call "$session" GET "/spend/logs?user_id=$user_id&summarize=false" | field 0.spend
budget="/keystead/v1/budgets/key:$(call "$key" GET /key/info | field info.key_id)"
call "$session" GET "$budget" | field windows.0.spent

say "6. Until the budget is used up"
status=200
calls=0
while [ "$status" = 200 ] && [ "$calls" -lt 50 ]; do
  calls=$((calls + 1))
  status=$(curl -sS -o /dev/null -w '%{http_code}' -X POST "$url/v1/chat/completions" \
    -H "Authorization: Bearer $key" -H "Content-Type: application/json" -d "$chat")
done
echo "call $calls was answered with $status"
[ "$status" = 429 ]

say "7. Blocked, unblocked, deleted: each in force when the answer is there"
call "$admin" POST /key/block "{\"key\": \"$key\"}" | field status
call "$admin" POST /key/unblock "{\"key\": \"$key\"}" | field status
call "$session" POST /key/delete "{\"keys\": [\"$key\"]}" | field deleted_keys.0
curl -sS -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $key" "$url/v1/models"

say "8. A viewer looks, and changes nothing"
viewer=$(call "$admin" POST /user/new '{"user_role": "proxy_admin_viewer"}' | field key)
call "$viewer" GET /user/list | field total
curl -sS -o /dev/null -w '%{http_code}\n' -X POST -H "Authorization: Bearer $viewer" \
  -H "Content-Type: application/json" -d '{}' "$url/user/new"

say "Done"
