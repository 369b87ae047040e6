def handler(event, context):
    return {'schema': 3, 'event': event}
