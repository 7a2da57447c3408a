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

-- Read models and other tables of the service's own are made by its role: it needs CREATE here, and no more.
grant usage, create on schema {schema} to {role};
grant select, insert on {schema}.events to {role};
grant select, insert, delete on {schema}.claims to {role};
grant select, insert, update on {schema}.subscriptions to {role};
grant select, update on {schema}.relay to {role};
