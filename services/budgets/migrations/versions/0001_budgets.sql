-- What is spent, set aside and still allowed, and what every call cost. Truth, all of it: no log holds it. Money in
-- nano-USD.

-- A row a scope. Whoever changes a window, a hold or a charge of a scope locks its row first, of several in their order;
-- so nothing else of the scope moves meanwhile. `changed`: its totals are to be published.
create table {schema}.scopes (
    scope                text primary key,
    total_spent_nano_usd bigint not null default 0,
    last_used_at         timestamptz,
    changed              boolean not null default false
) with (fillfactor = 70);
create index scopes_changed on {schema}.scopes (scope) where changed;

-- `spent` includes `presumed`: the holds of lost workers, of which nobody knows the bill. A window that never resets
-- goes from 1970 to 9999. `reached` and `exhausted` are what was told of it.
create table {schema}.windows (
    scope             text not null,
    window_start      timestamptz not null,
    window_end        timestamptz not null,
    limit_nano_usd    bigint,
    spent_nano_usd    bigint not null,
    leased_nano_usd   bigint not null,
    presumed_nano_usd bigint not null,
    ceiling_nano_usd  bigint,
    reached           double precision[] not null default '{}',
    exhausted         boolean not null default false,
    primary key (scope, window_end, window_start),
    check (leased_nano_usd >= 0 and presumed_nano_usd >= 0 and spent_nano_usd >= presumed_nano_usd),
    check ((limit_nano_usd is null) = (ceiling_nano_usd is null) and ceiling_nano_usd >= limit_nano_usd),
    -- The promise itself: whatever the code does, no row passes its ceiling.
    constraint windows_hold check (spent_nano_usd + leased_nano_usd <= ceiling_nano_usd)
) with (fillfactor = 70);

-- A row a hold, kept for a while after its end, so that who asks again gets the same answer.
-- A void one was settled before it was placed: it can't be placed any more.
create table {schema}.holds (
    hold_id          text primary key,
    worker_id        text not null,
    state            text not null check (state in ('open', 'settled', 'written_off', 'void')),
    held_nano_usd    bigint not null check (held_nano_usd >= 0),
    output_cap       bigint not null,
    admitted_at      timestamptz not null,
    ended_at         timestamptz,
    charged_nano_usd bigint,
    window_spent     jsonb,
    check ((state = 'open') = (ended_at is null))
);
create index holds_open on {schema}.holds (worker_id) where state = 'open';
create index holds_ended on {schema}.holds (ended_at) where state in ('settled', 'void');

-- Where a hold holds, while it is open or written off.
create table {schema}.hold_windows (
    hold_id      text not null,
    scope        text not null,
    window_start timestamptz not null,
    window_end   timestamptz not null,
    primary key (hold_id, scope, window_end, window_start)
);
create index hold_windows_by_scope on {schema}.hold_windows (scope);

-- Gateway workers. A row that is gone is never renewed: its worker joins anew under another id.
create table {schema}.workers (
    worker_id  text primary key,
    number     bigint not null default 0,
    positions  jsonb not null default '{}',
    gone       boolean not null default false,
    renewed_at timestamptz not null
);

-- What every call cost, refused ones too. Append-only by permission; UsageSettled holds each batch's digest.
-- `usage_object` is text, so that the digest can be made again from what is stored.
create table {schema}.ledger (
    admitted_at           timestamptz not null,
    hold_id               text not null,
    call_id               text not null,
    request_id            text not null,
    call_type             text not null,
    status                text not null,
    token                 text not null,
    key_id                text,
    key_alias             text,
    user_id               text,
    scopes                text[] not null,
    model                 text not null,
    model_group           text not null,
    model_id              text not null,
    provider              text not null,
    prompt_tokens         bigint not null,
    completion_tokens     bigint not null,
    cache_read_tokens     bigint not null,
    cache_creation_tokens bigint not null,
    input_nano_usd        bigint not null,
    output_nano_usd       bigint not null,
    held_nano_usd         bigint not null,
    billed_nano_usd       bigint,
    spend_nano_usd        bigint not null,
    started_at            timestamptz not null,
    first_token_at        timestamptz not null,
    ended_at              timestamptz not null,
    request_tags          text[] not null,
    session_id            text not null,
    attempted_retries     bigint not null,
    usage_object          text not null,
    error_code            text,
    error_class           text,
    error_message         text,
    primary key (admitted_at, hold_id)
) partition by range (admitted_at);
create index ledger_by_key on {schema}.ledger (key_id, admitted_at);
create index ledger_by_user on {schema}.ledger (user_id, admitted_at);
create index ledger_by_request on {schema}.ledger (request_id);

-- What identifies a person stands beside the ledger, outside the digest, so that it can be deleted.
create table {schema}.ledger_persons (
    admitted_at timestamptz not null,
    hold_id     text not null,
    user_id     text,
    ip          text,
    user_agent  text,
    end_user    text not null,
    primary key (admitted_at, hold_id)
);
create index ledger_persons_by_user on {schema}.ledger_persons (user_id);

-- Rows of holds that were written off, until their settlement comes after all and makes a row of the ledger of it.
create table {schema}.presumed_usage (
    like {schema}.ledger including all
);
create index presumed_usage_by_hold on {schema}.presumed_usage (hold_id);

create view {schema}.usage_rows as
    select l.*, false as presumed from {schema}.ledger l
    union all
    select p.*, true as presumed from {schema}.presumed_usage p;

-- Makes the partition of the month that `day` is in (UTC), if it is not there. The role may not change the ledger, so it
-- runs as the ledger's owner. Made aside and then attached: that blocks neither readers nor writers.
create function {schema}.add_ledger_month(day date) returns void
language plpgsql security definer set search_path = {schema}, pg_temp as $$
declare
    first_day date := date_trunc('month', day);
    name text := to_char(first_day, '"ledger_"YYYY_MM');
begin
    if to_regclass(format('{schema}.%I', name)) is not null then
        return;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('{schema}.ledger', 0));
    if to_regclass(format('{schema}.%I', name)) is null then
        execute format('create table %I (like ledger including all)', name);
        execute format('alter table ledger attach partition %I for values from (%L) to (%L)', name,
                       first_day::text || ' 00:00:00+00', (first_day + interval '1 month')::date::text || ' 00:00:00+00');
    end if;
end
$$;
revoke all on function {schema}.add_ledger_month(date) from public;

select {schema}.add_ledger_month((now() at time zone 'utc')::date);

grant select, insert, update on {schema}.scopes to {role};
grant select, insert, update on {schema}.windows to {role};
grant select, insert, update, delete on {schema}.holds to {role};
grant select, insert, delete on {schema}.hold_windows to {role};
grant select, insert, update, delete on {schema}.workers to {role};
grant select, insert on {schema}.ledger to {role};
grant select, insert, delete on {schema}.ledger_persons to {role};
grant select, insert, delete on {schema}.presumed_usage to {role};
grant select on {schema}.usage_rows to {role};
grant execute on function {schema}.add_ledger_month(date) to {role};
