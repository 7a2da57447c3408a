-- The tables of one service's log. Run by the owner, in the service's schema; the service's role may add events and
-- read them, and nothing else: append-only is a permission, not a promise.

create table {schema}.events (
    position       bigint primary key,
    id             uuid not null unique,
    stream         text not null,
    version        integer not null,
    type           text not null,
    schema_version integer not null,
    data           jsonb not null,
    actor          text not null,
    correlation_id text not null,
    causation_id   text,
    recorded_at    timestamptz not null,
    unique (stream, version)
);

create table {schema}.claims (
    claim  text primary key,
    stream text not null
);

create table {schema}.subscriptions (
    source   text primary key,
    position bigint not null
);

create table {schema}.relay (
    only_row  boolean primary key default true check (only_row),
    published bigint not null
);
insert into {schema}.relay (published) values (0);

-- Appends a transaction's events: takes the log's lock, and only then looks where the log ends, so that positions are
-- in commit order, without a gap, and recorded times never go back. It is the transaction's last statement.
-- An element without a version goes to the end of its stream; any other must be the next, else unique_violation.
create function {schema}.append_events(batch jsonb) returns bigint
language plpgsql set search_path = {schema} as $$
declare
    last_position bigint;
    last_recorded timestamptz;
begin
    perform pg_advisory_xact_lock(hashtextextended('{schema}.events', 0));
    select e.position, e.recorded_at into last_position, last_recorded
      from events e order by e.position desc limit 1;
    insert into events (position, id, stream, version, type, schema_version, data, actor, correlation_id,
                        causation_id, recorded_at)
    select coalesce(last_position, 0) + b.place,
           (b.item ->> 'id')::uuid,
           b.item ->> 'stream',
           coalesce((b.item ->> 'version')::integer,
                    (select coalesce(max(e.version), 0) from events e where e.stream = b.item ->> 'stream')
                    + row_number() over (partition by b.item ->> 'stream' order by b.place)),
           b.item ->> 'type',
           (b.item ->> 'schema_version')::integer,
           b.item -> 'data',
           b.item ->> 'actor',
           b.item ->> 'correlation_id',
           b.item ->> 'causation_id',
           greatest(clock_timestamp(), last_recorded)
      from jsonb_array_elements(batch) with ordinality as b (item, place);
    last_position := coalesce(last_position, 0) + jsonb_array_length(batch);
    perform pg_notify('{schema}_events', last_position::text);
    return last_position;
end
$$;

-- Read models and other tables of the service's own are made by its role: it needs CREATE here, and no more.
grant usage, create on schema {schema} to {role};
grant select, insert on {schema}.events to {role};
grant select, insert, delete on {schema}.claims to {role};
grant select, insert, update on {schema}.subscriptions to {role};
grant select, update on {schema}.relay to {role};
