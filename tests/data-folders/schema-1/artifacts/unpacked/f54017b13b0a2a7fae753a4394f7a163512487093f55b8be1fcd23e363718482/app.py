def handler(event, context):
    return {'schema': 1, 'event': event}
