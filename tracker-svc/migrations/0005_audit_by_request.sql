-- A repeated call is recognised by its request id. One id may have very many rows, so the index covers the whole lookup.
CREATE INDEX audit_by_request ON audit (request, actor, object, action, at);
