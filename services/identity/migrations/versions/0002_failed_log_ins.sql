-- Log-ins that failed in the last minute, and who is not heard because of them: of a source, and of a source at one
-- name. Each is known by an HMAC, so that no name and no address is here; a job deletes what no longer counts.
create table {schema}.failed_log_ins (
    who           text primary key,
    failed_at     timestamptz[] not null default '{}',
    blocked_until timestamptz,
    over_at       timestamptz not null
);

create index failed_log_ins_over_at on {schema}.failed_log_ins (over_at);

grant select, insert, update, delete on {schema}.failed_log_ins to {role};
