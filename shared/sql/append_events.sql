-- Appends a transaction's events: takes the log's lock, and only then looks where the log ends, so that positions are
-- in commit order, without a gap, and recorded times never go back. It is the transaction's last statement.
-- An element without a version goes to the end of its stream; any other must be the next, else unique_violation.
create or replace function {schema}.append_events(batch jsonb) returns bigint
language plpgsql set search_path = {schema} as $$
declare
    last_position bigint;
    last_recorded timestamptz;
    recorded timestamptz;
begin
    perform pg_advisory_xact_lock(hashtextextended('{schema}.events', 0));
    select e.position, e.recorded_at into last_position, last_recorded
      from events e order by e.position desc limit 1;
    -- One instant for all: the rows are not made in the order of their places.
    recorded := greatest(clock_timestamp(), last_recorded);
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
           recorded
      from jsonb_array_elements(batch) with ordinality as b (item, place);
    last_position := coalesce(last_position, 0) + jsonb_array_length(batch);
    perform pg_notify('{schema}_events', last_position::text);
    return last_position;
end
$$;
