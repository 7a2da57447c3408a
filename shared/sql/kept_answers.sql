-- Requests under an Idempotency-Key: what each was answered, or the seed to answer it from. Found by an HMAC of caller,
-- route and header; the body is kept as an HMAC, seed and answer sealed, so that the table tells nobody anything.

create table {schema}.kept_answers (
    id            text primary key,
    body_hash     text not null,
    sealed_seed   text not null,
    sealed_answer text,
    asked_at      timestamptz not null
);
create index kept_answers_by_age on {schema}.kept_answers (asked_at);

grant select, insert, update, delete on {schema}.kept_answers to {role};
