def handler(event, context):
    return {'schema': 2, 'event': event}
